//! Many who swap from the same record: exactly one wins.

use tier0_store::{Embedded, StoreHandle, Swapped};

use crate::sample::{after, entry, first};

const RACERS: u32 = 8;
const ROUNDS: u32 = 50;

#[test]
fn exactly_one_of_many_swaps_wins() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let store = StoreHandle::start(Embedded::open(directory.path()).unwrap()).unwrap();
        assert_eq!(store.create(first()).await.unwrap(), Swapped::Stored);
        for round in 0..ROUNDS {
            let record = store.load().await.unwrap().unwrap();
            let racers: Vec<_> = (0..RACERS)
                .map(|racer| {
                    let (store, record) = (store.clone(), record.clone());
                    tokio::spawn(async move {
                        let next = after(&record);
                        let sentence = format!("round {round} racer {racer}");
                        let batch = entry(racer, &sentence).into();
                        store.swap_with_journal(record.heard(), next, batch).await.unwrap()
                    })
                })
                .collect();
            let mut won = 0;
            for racer in racers {
                match racer.await.unwrap() {
                    Swapped::Stored => won += 1,
                    Swapped::Lost { current } => assert_eq!(*current, after(&record)),
                }
            }
            assert_eq!(won, 1, "round {round}");
        }
        let record = store.load().await.unwrap().unwrap();
        assert_eq!(record.revision.number(), u64::from(ROUNDS) + 1);
    });
}

#[test]
fn write_stands_when_the_caller_stops_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = StoreHandle::start(Embedded::open(directory.path()).unwrap()).unwrap();
        assert_eq!(store.create(first()).await.unwrap(), Swapped::Stored);
        let mut swap = Box::pin(store.swap(first().heard(), after(&first())));
        // Polled once, so that the call is on its way, and then forgotten.
        std::future::poll_fn(|context| {
            let _ = swap.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
        drop(swap);
        assert_eq!(store.load().await.unwrap(), Some(after(&first())));
    });
}
