//! The real backend: PostgreSQL first, then the cache.

use std::sync::Arc;

use anyhow::Context;
use tier0_config::{Stack, TelemetrySettings};
use tier0_core::words::Region;
use tokio::sync::mpsc;

use crate::backend::{Backend, Health, Latest, Page, Source, Written};
use crate::cache::Cache;
use crate::committer::Committer;
use crate::database::Database;
use crate::metrics::Metrics;
use crate::reading::{Batch, DeviceId};
use crate::selection::Selection;

/// Batches that may wait for the cache. More than that, and the cache is in trouble anyway.
const CACHE_QUEUE: usize = 256;

/// PostgreSQL and Redis behind one service.
pub(crate) struct Service {
    region: Region,
    database: Arc<Database>,
    committer: Committer,
    cache: Arc<Cache>,
    cache_queue: mpsc::Sender<Arc<Batch>>,
    metrics: Arc<Metrics>,
}

impl Service {
    /// Prepare everything; connects to nothing yet. Must be called in a tokio runtime.
    pub(crate) fn new(stack: &Stack, settings: &TelemetrySettings) -> anyhow::Result<Arc<Service>> {
        let datastore = |name| {
            stack.datastore(name).with_context(|| format!("there is no datastore named {name}"))
        };
        let metrics = Arc::new(Metrics::new());
        let database = Database::new(datastore(&settings.postgres)?, &settings.region)?;
        let database = Arc::new(database);
        tokio::spawn({
            let database = Arc::clone(&database);
            // The setting is bounded so that it fits.
            let hours = i32::try_from(settings.retention_hours).ok().filter(|hours| *hours > 0);
            async move {
                database.migrate().await;
                database.keep_partitions(hours).await;
            }
        });
        let committer = Committer::start(&database, &metrics);
        let cache = Arc::new(Cache::new(datastore(&settings.redis)?, &settings.region)?);
        let (cache_queue, queued) = mpsc::channel(CACHE_QUEUE);
        tokio::spawn(fill_cache(Arc::clone(&cache), queued));
        Ok(Arc::new(Service {
            region: settings.region.clone(),
            database,
            committer,
            cache,
            cache_queue,
            metrics,
        }))
    }
}

/// Beside the requests, so that a slow cache delays no acknowledgement. Ends with the service.
async fn fill_cache(cache: Arc<Cache>, mut queued: mpsc::Receiver<Arc<Batch>>) {
    while let Some(batch) = queued.recv().await {
        if let Err(error) = cache.put(batch.readings()).await {
            tracing::debug!(%error, "the cache took no update");
        }
    }
}

impl Backend for Service {
    async fn write(&self, batch: Arc<Batch>) -> Written {
        let written = self.committer.write(Arc::clone(&batch)).await;
        match &written {
            // With duplicates nobody knows which of the two bodies is the stored one.
            Written::Stored { duplicates: 0, .. } => {
                if self.cache_queue.try_send(batch).is_err() {
                    self.metrics.cache_skipped();
                }
            }
            Written::Stored { .. } => {}
            Written::NotStored { why } | Written::Unknown { why } | Written::Rejected { why } => {
                tracing::debug!(%why, readings = batch.readings().len(), "a batch was not stored");
            }
        }
        written
    }

    async fn latest(&self, device: &DeviceId) -> Latest {
        match self.cache.get(device).await {
            Ok(Some(reading)) => return Latest::Found { reading, source: Source::Cache },
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "the cache gave no answer"),
        }
        self.database.latest(device).await
    }

    async fn select(&self, selection: &Selection) -> Page {
        self.database.select(selection).await
    }

    async fn health(&self) -> Health {
        let (postgres, cache_reachable) =
            tokio::join!(self.database.health(), self.cache.reachable());
        Health { region: self.region.clone(), postgres, cache_reachable }
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
