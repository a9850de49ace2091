//! Where secrets are read from, what is refused, and that none is ever printed.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tier0_config::{InvalidSecretSource, Secret, SecretError, SecretSource, Stack};

const CANARY: &str = "tr0ub4dor";

fn write(path: &Path, mode: u32) {
    std::fs::write(path, format!("{CANARY}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn source(text: &str) -> SecretSource {
    text.parse().unwrap()
}

#[test]
fn the_three_forms_are_told_apart_and_written_back() {
    assert_eq!(source("/etc/x"), SecretSource::File("/etc/x".into()));
    assert_eq!(source("env:A_1"), SecretSource::Environment("A_1".into()));
    assert_eq!(source("credential:role.token"), SecretSource::Credential("role.token".into()));
    let odd = SecretSource::from(PathBuf::from("env:A"));
    for source in [source("/etc/x"), source("env:A"), source("credential:x"), source("./env:A")] {
        assert_eq!(source.to_string().parse(), Ok(source));
    }
    assert_eq!(odd.to_string(), "./env:A");
    for text in ["env:", "env:1A", "env:A B", "env:A=B"] {
        assert_eq!(text.parse::<SecretSource>(), Err(InvalidSecretSource::Variable), "{text}");
    }
    for text in ["credential:", "credential:..", "credential:../x", "credential:/x"] {
        assert_eq!(text.parse::<SecretSource>(), Err(InvalidSecretSource::Credential), "{text}");
    }
    assert_eq!("".parse::<SecretSource>(), Err(InvalidSecretSource::Empty));
}

#[test]
fn each_form_is_read_and_says_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let variables = |name: &str| match name {
        "CREDENTIALS_DIRECTORY" => Some(directory.path().as_os_str().to_owned()),
        "TOKEN" => Some(OsString::from(CANARY)),
        "BLANK" => Some(OsString::from(" \n")),
        _ => None,
    };
    let file = SecretSource::from(path.clone());
    write(&path, 0o600);
    for source in [file.clone(), source("credential:token"), source("env:TOKEN")] {
        assert_eq!(source.read_with(variables).unwrap().expose(), CANARY, "{source}");
    }
    // A credential's group bits may be the mask of an access control list.
    write(&path, 0o440);
    assert!(matches!(file.read_with(variables), Err(SecretError::Exposed { mode: 0o440, .. })));
    assert!(source("credential:token").read_with(variables).is_ok());
    write(&path, 0o604);
    assert!(matches!(file.read_with(variables), Err(SecretError::Exposed { .. })));
    assert!(matches!(
        source("credential:token").read_with(variables),
        Err(SecretError::Exposed { .. })
    ));
    assert!(matches!(source("env:BLANK").read_with(variables), Err(SecretError::Empty { .. })));
    assert!(matches!(source("env:NO").read_with(variables), Err(SecretError::NoVariable { .. })));
    assert!(matches!(
        source("credential:token").read_with(|_| None),
        Err(SecretError::NoCredentials { .. })
    ));
    assert!(matches!(source("/no/x").read_with(variables), Err(SecretError::Read { .. })));
}

#[test]
fn no_secret_is_printed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("role.token");
    write(&path, 0o600);
    let text = tier0_config::example().replace("/etc/tier0/role.token", path.to_str().unwrap());
    let file = directory.path().join("stack.toml");
    std::fs::write(&file, text).unwrap();
    let stack = Stack::load(&file).unwrap();
    let secret = stack.stack.role_token_file.read().unwrap();
    assert_eq!(secret.expose(), CANARY);
    assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(…) Some(Secret(…))");
    for printed in [format!("{stack:?}"), format!("{stack:#?}"), stack.to_toml().unwrap()] {
        assert!(!printed.contains(CANARY));
    }
    write(&path, 0o644);
    let refused = Secret::from_file(&path).unwrap_err();
    assert!(!format!("{refused} {refused:?}").contains(CANARY));
}
