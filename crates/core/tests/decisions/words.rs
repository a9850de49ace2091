//! What is read from outside into words: any text is survived, and what is read is what was written.

use proptest::prelude::*;
use tier0_core::orchestrator::first_record;
use tier0_core::record::{Automatic, Record};
use tier0_core::words::{Lsn, NodeId, OperationId, Region, SyncName, WallMillis};

/// A name that is read prints as the text it was read from: two texts are never one name.
fn reads_as_written<T: std::str::FromStr + ToString>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        assert_eq!(read.to_string(), text);
    }
}

proptest! {
    #[test]
    fn any_text_is_survived_as_a_name(text in "[a-z0-9.#+ -]{0,24}|\\PC{0,60}") {
        reads_as_written::<Region>(&text);
        reads_as_written::<NodeId>(&text);
        reads_as_written::<SyncName>(&text);
        reads_as_written::<OperationId>(&text);
    }

    #[test]
    fn a_sync_name_is_read_back(number: u64) {
        let name = SyncName::new("main.region2".parse().unwrap(), number);
        prop_assert_eq!(name.to_string().parse::<SyncName>(), Ok(name));
    }

    #[test]
    fn any_text_is_survived_as_a_position(text in "[0-9A-Fa-f/+ ]{0,20}|\\PC{0,40}") {
        if let Ok(lsn) = text.parse::<Lsn>() {
            prop_assert_eq!(lsn.to_string().parse::<Lsn>(), Ok(lsn));
        }
    }

    #[test]
    fn a_position_is_read_back(bytes: u64) {
        let lsn = Lsn::from_bytes(bytes);
        prop_assert_eq!(lsn.to_string().parse::<Lsn>(), Ok(lsn));
    }
}

#[test]
fn a_record_cut_or_changed_anywhere() {
    let shape = crate::world::settings(1, 1).shape;
    let lineage = "01234567-89ab".parse().unwrap();
    let driver = "run".to_owned();
    let record = first_record(
        "test".parse().unwrap(),
        &shape,
        lineage,
        driver,
        Automatic::default(),
        WallMillis(0),
    );
    let whole = serde_json::to_vec(&record).unwrap();
    assert_eq!(serde_json::from_slice::<Record>(&whole).unwrap(), record);
    for length in 0..whole.len() {
        assert!(serde_json::from_slice::<Record>(&whole[..length]).is_err(), "cut to {length}");
    }
    for place in 0..whole.len() {
        for bit in 0..8 {
            let mut changed = whole.clone();
            changed[place] ^= 1 << bit;
            let Ok(read) = serde_json::from_slice::<Record>(&changed) else { continue };
            let again = serde_json::to_vec(&read).unwrap();
            assert_eq!(serde_json::from_slice::<Record>(&again).unwrap(), read);
        }
    }
}
