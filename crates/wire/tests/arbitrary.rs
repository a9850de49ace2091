//! Messages that were cut or changed anywhere: no panic, and what is taken is a whole message.
#![allow(clippy::unwrap_used)]

use serde::Serialize;
use serde::de::DeserializeOwned;
use tier0_core::observe::{AgentReport, Knock, Reach};
use tier0_core::order::{Command, Order, Outcome, PromoteMember, Step};
use tier0_core::words::{
    Epoch, Heard, Lsn, Revision, Stamp, StepNumber, SystemId, Timeline, WalPosition,
};
use tier0_wire::{
    CommandAnswer, CommandRequest, ConfirmAnswer, ConfirmRequest, Grant, PROTOCOL, PollRequest,
};

/// Every cut is refused. What a change of one bit makes of it is refused, or says the same when it
/// is sent on.
fn survives<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T) {
    let whole = serde_json::to_vec(message).unwrap();
    assert_eq!(serde_json::from_slice::<T>(&whole).unwrap(), *message);
    for length in 0..whole.len() {
        assert!(serde_json::from_slice::<T>(&whole[..length]).is_err(), "cut to {length}");
    }
    for place in 0..whole.len() {
        for bit in 0..8 {
            let mut changed = whole.clone();
            changed[place] ^= 1 << bit;
            let Ok(read) = serde_json::from_slice::<T>(&changed) else { continue };
            let again = serde_json::to_vec(&read).unwrap();
            assert_eq!(serde_json::from_slice::<T>(&again).unwrap(), read);
        }
    }
}

fn command() -> Command {
    Command {
        node: "main.region2".parse().unwrap(),
        stamp: Stamp {
            lineage: "01234567-89ab".parse().unwrap(),
            epoch: Epoch::read(3),
            revision: Revision::read(17),
            step: StepNumber::read(2),
        },
        step: Step::Promote,
        order: Order::PostgresPromote {
            member: Some(PromoteMember {
                name: "main.region2#7".parse().unwrap(),
                system: SystemId("7300000000000000001".to_owned()),
                timeline: Timeline(2),
                floor: Lsn::from_bytes(0x16_B374_D848),
            }),
            stopped_at: Some(WalPosition {
                system: SystemId("7300000000000000001".to_owned()),
                timeline: Timeline(2),
                lsn: Lsn::from_bytes(0x16_B374_D900),
            }),
            accept_loss: false,
            names: None,
        },
        limit_ms: 5_000,
    }
}

#[test]
fn a_command_cut_or_changed_anywhere() {
    survives(&CommandRequest { protocol: PROTOCOL, command: command(), wait_ms: 1_000 });
}

#[test]
fn an_answer_cut_or_changed_anywhere() {
    survives(&CommandAnswer::Ended { outcome: Outcome::Unknown { why: "no answer".to_owned() } });
    survives(&CommandAnswer::Running { progress: None });
}

#[test]
fn a_poll_cut_or_changed_anywhere() {
    let heard = Heard {
        lineage: "01234567-89ab".parse().unwrap(),
        epoch: Epoch::read(3),
        revision: Revision::read(17),
    };
    survives(&PollRequest {
        protocol: PROTOCOL,
        heard: Some(heard),
        writer: Some("region1".parse().unwrap()),
        known: Some(("run".to_owned(), 7)),
        wait_ms: 200,
        grant: Some(Grant { run: "run".to_owned(), stamp_us: 1_234_567, lease_ms: 1_000 }),
        alone: false,
    });
}

#[test]
fn a_report_cut_or_changed_anywhere() {
    let reach = Reach { newest: Knock::Silent, unanswered_ms: 640 };
    survives(&AgentReport {
        region: "region1".parse().unwrap(),
        run: "run".to_owned(),
        sequence: 7,
        stamp_us: 1_234_567,
        heard: None,
        nodes: Default::default(),
        peers: [("main.region2".parse().unwrap(), reach)].into(),
        refusing: Some("its state is damaged".to_owned()),
        host: Default::default(),
    });
}

#[test]
fn a_question_between_agents_and_its_answer_cut_or_changed_anywhere() {
    let lineage = "01234567-89ab".parse().unwrap();
    survives(&ConfirmRequest {
        protocol: PROTOCOL,
        lineage,
        epoch: Epoch::read(3),
        lease_ms: 1_000,
    });
    survives(&ConfirmAnswer { confirmed: true });
}
