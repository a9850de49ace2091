//! Servers that answer, that are not there, that are frozen, and that hang up.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tier0_core::observe::Knock;
use tier0_core::record::DatastoreKind;
use tier0_knock::{Kept, knock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const MOST: Duration = Duration::from_millis(300);

async fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn a_server_that_answers_anything_is_there() {
    for (kind, length) in [(DatastoreKind::Postgres, 8), (DatastoreKind::Redis, 6)] {
        let (listener, address) = listening().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = vec![0; length];
            stream.read_exact(&mut question).await.unwrap();
            stream.write_all(b"N").await.unwrap();
            question
        });
        assert_eq!(knock(kind, address, MOST).await, Knock::Answered);
        let question = server.await.unwrap();
        match kind {
            DatastoreKind::Postgres => assert_eq!(question[4..], 80_877_103_u32.to_be_bytes()),
            DatastoreKind::Redis => assert_eq!(question, b"PING\r\n"),
        }
    }
}

#[tokio::test]
async fn nobody_there_is_a_refusal_and_so_is_hanging_up() {
    let (listener, address) = listening().await;
    drop(listener);
    assert_eq!(knock(DatastoreKind::Redis, address, MOST).await, Knock::Refused);
    let (listener, address) = listening().await;
    let server = tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
    assert_eq!(knock(DatastoreKind::Redis, address, MOST).await, Knock::Refused);
    server.await.unwrap();
}

#[tokio::test]
async fn a_frozen_server_is_silent() {
    // The kernel takes the connection, and nobody reads from it.
    let (_listener, address) = listening().await;
    assert_eq!(knock(DatastoreKind::Postgres, address, MOST).await, Knock::Silent);
}

#[test]
fn silence_is_counted_from_the_last_answer() {
    let began = Instant::now();
    let later = |ms| began + Duration::from_millis(ms);
    let mut kept = Kept::first(Knock::Answered, began);
    assert!(kept.add(Knock::Silent, later(500)));
    assert!(!kept.add(Knock::Silent, later(700)));
    assert_eq!(kept.reach(later(800)).unanswered_ms, 800);
    assert!(kept.add(Knock::Answered, later(900)));
    assert_eq!(kept.reach(later(5_000)).unanswered_ms, 0);
}
