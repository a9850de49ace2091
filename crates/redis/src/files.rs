//! Writing small files without holding anybody up. On a busy disk a create or rename can wait for
//! others' writes, and a look or a switch must not wait with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The writers of one file: one at a time, and only the newest content counts.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    newest: AtomicU64,
    turn: Mutex<()>,
}

impl Latest {
    /// Write some time later, unless something newer is to be written by then.
    pub fn later(self: &Arc<Self>, write: impl FnOnce() + Send + 'static) {
        let (this, ticket) = (Arc::clone(self), self.ticket());
        tokio::task::spawn_blocking(move || {
            let _turn = this.turn.lock().unwrap_or_else(PoisonError::into_inner);
            if this.newest.load(Ordering::Acquire) == ticket {
                write();
            }
        });
    }

    /// Write now, in place of everything that waits to be written, and come back when it is done.
    /// `None` if that was interrupted.
    pub async fn now<T: Send + 'static>(
        self: &Arc<Self>,
        write: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let this = Arc::clone(self);
        self.ticket();
        let written = tokio::task::spawn_blocking(move || {
            let _turn = this.turn.lock().unwrap_or_else(PoisonError::into_inner);
            write()
        });
        written.await.ok()
    }

    fn ticket(&self) -> u64 {
        self.newest.fetch_add(1, Ordering::AcqRel) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_content_wins() {
        let (file, content) = (Arc::new(Latest::default()), Arc::new(Mutex::new(0)));
        for number in 1..50 {
            let content = Arc::clone(&content);
            file.later(move || *content.lock().expect("not poisoned") = number);
        }
        let last = Arc::clone(&content);
        file.now(move || *last.lock().expect("not poisoned") = 99).await;
        // Whoever waited has nothing to write any more.
        file.now(|| ()).await;
        assert_eq!(*content.lock().expect("not poisoned"), 99);
    }
}
