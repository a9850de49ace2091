//! Who may open a store, and what is refused instead of begun anew.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tier0_store::{
    AuthorityStore, Embedded, OpenError, StoreHandle, Swapped, last_record, set_aside,
};

use crate::sample::{after, first};

fn with_record(directory: &Path) {
    let mut store = Embedded::open(directory).unwrap();
    assert_eq!(store.create(&first()).unwrap(), Swapped::Stored);
    assert_eq!(store.swap(&first().heard(), &after(&first())).unwrap(), Swapped::Stored);
}

fn refusal(directory: &Path) -> OpenError {
    Embedded::open(directory).expect_err("must be refused")
}

#[test]
fn second_opener_is_told_who_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/store");
    let first = Embedded::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    let error = refusal(&path);
    assert!(
        matches!(error, OpenError::InUse { holder: Some(pid), .. } if pid == std::process::id()),
        "{error}"
    );
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(first);
    Embedded::open(&path).unwrap();
}

#[test]
fn handle_frees_the_store_when_closed() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let handle = StoreHandle::start(Embedded::open(directory.path()).unwrap()).unwrap();
        let clone = handle.clone();
        assert_eq!(handle.create(first()).await.unwrap(), Swapped::Stored);
        handle.close().await;
        let error = clone.load().await.unwrap_err();
        assert!(matches!(error, tier0_store::StoreError::Closed), "{error}");
        let mut store = Embedded::open(directory.path()).unwrap();
        assert_eq!(store.load().unwrap(), Some(first()));
    });
}

#[test]
fn lost_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    with_record(path);
    let database = path.join("store.db");
    let kept = fs::read(&database).unwrap();

    fs::remove_file(&database).unwrap();
    let error = refusal(path);
    assert!(matches!(error, OpenError::Lost { .. }), "{error}");
    assert!(error.to_string().contains("tier0 authority adopt"), "{error}");
    assert!(!database.exists(), "nothing is begun anew");

    fs::write(&database, b"").unwrap();
    assert!(matches!(refusal(path), OpenError::Lost { .. }));

    // An empty store of another directory is as lost as none.
    let other = tempfile::tempdir().unwrap();
    drop(Embedded::open(other.path()).unwrap());
    fs::copy(other.path().join("store.db"), &database).unwrap();
    assert!(matches!(refusal(path), OpenError::Lost { .. }));

    fs::write(&database, kept).unwrap();
    assert_eq!(Embedded::open(path).unwrap().load().unwrap(), Some(after(&first())));
}

#[test]
fn older_copy_and_foreign_store_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    with_record(path);
    let copy = fs::read(path.join("store.db")).unwrap();
    let mut store = Embedded::open(path).unwrap();
    let two = after(&first());
    assert_eq!(store.swap(&two.heard(), &after(&two)).unwrap(), Swapped::Stored);
    drop(store);
    let newest = fs::read(path.join("store.db")).unwrap();
    fs::write(path.join("store.db"), copy).unwrap();
    let error = refusal(path);
    assert!(matches!(error, OpenError::Lost { .. }), "{error}");
    assert!(error.to_string().contains("revision 3"), "{error}");

    let other = tempfile::tempdir().unwrap();
    let mut store = Embedded::open(other.path()).unwrap();
    let mut foreign = first();
    foreign.lineage = "0192ffff-0000-7000-8000-000000000009".parse().unwrap();
    foreign.revision = tier0_core::words::Revision::read(100);
    assert_eq!(store.create(&foreign).unwrap(), Swapped::Stored);
    drop(store);
    fs::copy(other.path().join("store.db"), path.join("store.db")).unwrap();
    assert!(matches!(refusal(path), OpenError::Lost { .. }));

    fs::write(path.join("store.db"), newest).unwrap();
    Embedded::open(path).unwrap();
}

#[test]
fn missing_marker_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    with_record(directory.path());
    let marker = directory.path().join("initialised");
    fs::remove_file(&marker).unwrap();
    drop(Embedded::open(directory.path()).unwrap());
    assert!(marker.exists());
    fs::remove_file(directory.path().join("store.db")).unwrap();
    assert!(matches!(refusal(directory.path()), OpenError::Lost { .. }));
}

#[test]
fn damaged_marker_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    with_record(directory.path());
    let marker = directory.path().join("initialised");
    let whole = fs::read(&marker).unwrap();
    for offset in (0..200).step_by(7) {
        let mut bytes = whole.clone();
        bytes[offset] ^= 1;
        fs::write(&marker, &bytes).unwrap();
        assert!(matches!(refusal(directory.path()), OpenError::Damaged { .. }), "byte {offset}");
    }
    fs::write(&marker, &whole[..100]).unwrap();
    assert!(matches!(refusal(directory.path()), OpenError::Damaged { .. }));
    fs::write(&marker, whole).unwrap();
    Embedded::open(directory.path()).unwrap();
}

#[test]
fn unknown_versions_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    with_record(directory.path());
    let database = directory.path().join("store.db");
    let alter = |statement: &str| {
        rusqlite::Connection::open(&database).unwrap().execute_batch(statement).unwrap();
    };
    alter("PRAGMA user_version = 2");
    let error = refusal(directory.path());
    assert!(matches!(error, OpenError::UnknownVersion { found: 2, known: 1, .. }), "{error}");
    alter("PRAGMA user_version = 1");

    // A record of another format, with a checksum that fits.
    let body = serde_json::to_string(&after(&first())).unwrap();
    let body = body.replacen("\"format\":1", "\"format\":7", 1);
    let checksum: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(body.as_bytes()).into();
    rusqlite::Connection::open(&database)
        .unwrap()
        .execute("UPDATE record SET body = ?1, checksum = ?2", (&body, &checksum))
        .unwrap();
    let error = refusal(directory.path());
    assert!(matches!(error, OpenError::UnknownVersion { found: 7, .. }), "{error}");
}

#[test]
fn files_that_are_not_a_store_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("store.db");
    fs::write(&database, b"not a database, but long enough to look like something").unwrap();
    assert!(matches!(refusal(directory.path()), OpenError::Damaged { .. }));
    fs::remove_file(&database).unwrap();
    rusqlite::Connection::open(&database).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(matches!(refusal(directory.path()), OpenError::Damaged { .. }));
}

#[test]
fn directory_that_others_may_write_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o770)).unwrap();
    assert!(matches!(refusal(directory.path()), OpenError::Exposed { mode: 0o770, .. }));
}

#[test]
fn store_that_was_set_aside_can_be_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    with_record(directory.path());
    let aside = set_aside(directory.path(), "1").unwrap();
    assert!(set_aside(directory.path(), "1").is_err(), "a label is used once");
    assert_eq!(Embedded::open(directory.path()).unwrap().load().unwrap(), None);
    assert_eq!(Embedded::open(&aside).unwrap().load().unwrap(), Some(after(&first())));
}

#[test]
fn what_a_refused_store_held_last_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    assert_eq!(last_record(path).unwrap(), None);
    let mut store = Embedded::open(path).unwrap();
    assert_eq!(store.create(&first()).unwrap(), Swapped::Stored);
    drop(store);
    let old = fs::read(path.join("store.db")).unwrap();
    let mut store = Embedded::open(path).unwrap();
    assert_eq!(store.swap(&first().heard(), &after(&first())).unwrap(), Swapped::Stored);
    assert!(matches!(last_record(path), Err(OpenError::InUse { .. })));
    drop(store);
    assert_eq!(last_record(path).unwrap(), Some(after(&first())));
    fs::write(path.join("store.db"), &old).unwrap();
    assert!(matches!(refusal(path), OpenError::Lost { .. }));
    assert_eq!(last_record(path).unwrap(), Some(first()));
    assert_eq!(fs::read(path.join("store.db")).unwrap(), old, "it stays as it was found");
    fs::write(path.join("store.db"), &old[..old.len() / 2]).unwrap();
    last_record(path).unwrap_err();
}

#[test]
fn lock_ends_with_the_store_while_children_are_started() {
    let directory = tempfile::tempdir().unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                std::process::Command::new("/bin/true").status().unwrap();
            }
        });
        let opened = (0..300).try_for_each(|_| Embedded::open(directory.path()).map(drop));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        opened.unwrap();
    });
}
