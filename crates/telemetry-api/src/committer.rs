//! Requests on their way into the database: they wait here until a session is free, and whatever
//! waits then is written together ([`crate::group`]).
//!
//! Left out: how often and where a group is tried again, which is `database`'s.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use crate::backend::Written;
use crate::database::{Attempt, Database};
use crate::group::{Group, MOST_IN_GROUP};
use crate::metrics::Metrics;
use crate::reading::Batch;

/// Groups that are written at the same time. Fewer than a node has sessions, so that reads find one.
const WRITERS: usize = 6;

/// Requests that may wait. More than that is more than the database will take before they give up.
const WAITING_MOST: usize = 4_096;

/// How long a request may wait for its turn; what its insert takes comes on top.
const TURN_LIMIT: Duration = Duration::from_secs(5);

struct Waiting {
    batch: Arc<Batch>,
    since: Instant,
    answer: oneshot::Sender<Written>,
}

/// The way into the database.
pub(crate) struct Committer {
    queue: mpsc::Sender<Waiting>,
}

impl Committer {
    /// Begin. Must be called in a tokio runtime; ends when it is dropped.
    pub(crate) fn start(database: &Arc<Database>, metrics: &Arc<Metrics>) -> Committer {
        let (queue, waiting) = mpsc::channel(WAITING_MOST);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..WRITERS {
            let (waiting, database) = (Arc::clone(&waiting), Arc::clone(database));
            let metrics = Arc::clone(metrics);
            tokio::spawn(async move {
                while let Some(taken) = take(&waiting).await {
                    write(&database, &metrics, taken).await;
                }
            });
        }
        Committer { queue }
    }

    /// Have a batch stored, all of it or nothing.
    pub(crate) async fn write(&self, batch: Arc<Batch>) -> Written {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { batch, since: Instant::now(), answer };
        if self.queue.try_send(waiting).is_err() {
            let why = format!("{WAITING_MOST} requests wait already");
            return Written::NotStored { why };
        }
        let gone = || Written::Unknown { why: "the service is ending".to_owned() };
        answered.await.unwrap_or_else(|_| gone())
    }
}

/// What waits, up to the size of a group; nothing when nobody can send any more.
async fn take(waiting: &Mutex<mpsc::Receiver<Waiting>>) -> Option<Vec<Waiting>> {
    let mut waiting = waiting.lock().await;
    let first = waiting.recv().await?;
    let mut readings = first.batch.readings().len();
    let mut taken = vec![first];
    while readings < MOST_IN_GROUP
        && let Ok(next) = waiting.try_recv()
    {
        readings += next.batch.readings().len();
        taken.push(next);
    }
    Some(taken)
}

async fn write(database: &Database, metrics: &Metrics, taken: Vec<Waiting>) {
    let (late, taken): (Vec<_>, Vec<_>) =
        taken.into_iter().partition(|one| one.since.elapsed() > TURN_LIMIT);
    for one in late {
        let why = "the database was busy for too long".to_owned();
        answer(one.answer, Written::NotStored { why });
    }
    if taken.is_empty() {
        return;
    }
    let group = Arc::new(Group::of(taken.iter().map(|one| Arc::clone(&one.batch)).collect()));
    metrics.group(group.len());
    match database.write(&group).await {
        Attempt::Stored { fresh } => {
            for (one, new) in taken.into_iter().zip(group.shares(&fresh)) {
                let duplicates = (one.batch.readings().len() as u64).saturating_sub(new);
                answer(one.answer, Written::Stored { new, duplicates });
            }
        }
        Attempt::NotStored { why } => {
            for one in taken {
                answer(one.answer, Written::NotStored { why: why.clone() });
            }
        }
        Attempt::Unknown { why } => {
            for one in taken {
                answer(one.answer, Written::Unknown { why: why.clone() });
            }
        }
        Attempt::Rejected { why } if taken.len() == 1 => {
            for one in taken {
                answer(one.answer, Written::Rejected { why: why.clone() });
            }
        }
        // Somebody's values were refused, and nobody else is to suffer for them.
        Attempt::Rejected { .. } => {
            for one in taken {
                Box::pin(write(database, metrics, vec![one])).await;
            }
        }
    }
}

fn answer(to: oneshot::Sender<Written>, written: Written) {
    // Whoever asked may have gone.
    let _ = to.send(written);
}
