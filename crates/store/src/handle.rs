//! A store for asynchronous code: one thread owns it, everybody else holds a cheap handle.
//!
//! One thread, because the store has one writer anyway, and because a durable write must never
//! block a thread of the runtime. Calls are carried out in the order in which they arrive, also
//! when the caller stops waiting.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use tier0_core::record::Record;
use tier0_core::words::{Heard, OperationId, WallMillis};
use tokio::sync::oneshot;

use crate::{
    AuthorityStore, JournalBatch, JournalEntry, OperationSummary, StoreError, StoredRecord, Swapped,
};

/// Without a call for this long, the store may tidy up.
const IDLE_AFTER: Duration = Duration::from_millis(200);

type Job = Box<dyn FnOnce(&mut dyn AuthorityStore) + Send>;

enum Message {
    Job(Job),
    Close(oneshot::Sender<()>),
}

/// A handle on a store that runs on its own thread. Clones share the store; it is closed when the
/// last of them is dropped.
#[derive(Debug, Clone)]
pub struct StoreHandle {
    sender: mpsc::Sender<Message>,
}

impl StoreHandle {
    /// Give the store its thread.
    pub fn start(store: impl AuthorityStore + 'static) -> std::io::Result<StoreHandle> {
        let (sender, receiver) = mpsc::channel();
        std::thread::Builder::new()
            .name("tier0-store".to_owned())
            .spawn(move || serve(store, receiver))?;
        Ok(StoreHandle { sender })
    }

    async fn call<T: Send + 'static>(
        &self,
        doing: &'static str,
        job: impl FnOnce(&mut dyn AuthorityStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |store| {
            // Nobody waiting is no failure: the caller gave up, the write stands.
            let _ = answer.send(job(store));
        });
        self.sender.send(Message::Job(job)).map_err(|_| StoreError::Closed)?;
        // The thread took the job and is gone: it may have got as far as storing.
        answered
            .await
            .unwrap_or_else(|error| Err(StoreError::Unknown { doing, source: Box::new(error) }))
    }

    /// See [`AuthorityStore::load`].
    pub async fn load(&self) -> Result<Option<Record>, StoreError> {
        self.call("load authority record", |store| store.load()).await
    }

    /// See [`AuthorityStore::create`].
    pub async fn create(&self, record: Record) -> Result<Swapped, StoreError> {
        self.call("create authority record", move |store| store.create(&record)).await
    }

    /// See [`AuthorityStore::swap`].
    pub async fn swap(&self, expected: Heard, next: Record) -> Result<Swapped, StoreError> {
        self.swap_with_journal(expected, next, JournalBatch::default()).await
    }

    /// See [`AuthorityStore::swap_with_journal`].
    pub async fn swap_with_journal(
        &self,
        expected: Heard,
        next: Record,
        batch: JournalBatch,
    ) -> Result<Swapped, StoreError> {
        self.call("swap authority record", move |store| {
            store.swap_with_journal(&expected, &next, &batch)
        })
        .await
    }

    /// See [`AuthorityStore::history`].
    pub async fn history(&self, limit: u32) -> Result<Vec<StoredRecord>, StoreError> {
        self.call("read past records", move |store| store.history(limit)).await
    }

    /// See [`AuthorityStore::append`].
    pub async fn append(&self, batch: impl Into<JournalBatch>) -> Result<(), StoreError> {
        let batch = batch.into();
        self.call("write journal", move |store| store.append(&batch)).await
    }

    /// See [`AuthorityStore::operations`].
    pub async fn operations(
        &self,
        limit: u32,
        before: Option<OperationId>,
    ) -> Result<Vec<OperationSummary>, StoreError> {
        self.call("list operations", move |store| store.operations(limit, before.as_ref())).await
    }

    /// See [`AuthorityStore::operation`].
    pub async fn operation(
        &self,
        id: OperationId,
    ) -> Result<Option<(OperationSummary, Vec<JournalEntry>)>, StoreError> {
        self.call("read operation", move |store| store.operation(&id)).await
    }

    /// See [`AuthorityStore::remember_key`].
    pub async fn remember_key(
        &self,
        key: String,
        operation: OperationId,
        at: WallMillis,
    ) -> Result<Option<OperationId>, StoreError> {
        self.call("remember idempotency key", move |store| store.remember_key(&key, &operation, at))
            .await
    }

    /// See [`AuthorityStore::draw_near`].
    pub async fn draw_near(&self) -> Result<(), StoreError> {
        self.call("draw the store near", |store| store.draw_near()).await
    }

    /// Carry out what was asked before, then close the store; returns when it can be opened again.
    /// From then on every clone answers [`StoreError::Closed`]; a call that was made before that and
    /// after this one was asked for answers [`StoreError::Unknown`], although nothing was stored.
    pub async fn close(self) {
        let (answer, answered) = oneshot::channel();
        if self.sender.send(Message::Close(answer)).is_ok() {
            // An error means that the thread is gone, which is what was asked for.
            let _ = answered.await;
        }
    }
}

fn serve(mut store: impl AuthorityStore, receiver: mpsc::Receiver<Message>) {
    while let Some(message) = next(&receiver, &mut store) {
        match message {
            Message::Job(job) => job(&mut store),
            Message::Close(answer) => {
                drop(store);
                // Before the answer, so that who has it finds the store closed.
                drop(receiver);
                let _ = answer.send(());
                return;
            }
        }
    }
}

/// The next message, with the tidying up in between. Sleeps for good once the store is tidy: an
/// idle store costs no wake-ups.
fn next(receiver: &mpsc::Receiver<Message>, store: &mut impl AuthorityStore) -> Option<Message> {
    match receiver.recv_timeout(IDLE_AFTER) {
        Ok(message) => Some(message),
        Err(RecvTimeoutError::Timeout) => {
            store.idle();
            receiver.recv().ok()
        }
        Err(RecvTimeoutError::Disconnected) => None,
    }
}
