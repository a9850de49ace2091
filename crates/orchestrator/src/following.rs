//! Following a store that several orchestrators share: it is read all the time, by a way of its own.
//!
//! For the one that acts a read says that no other has taken its place, which is what its leases wait
//! for; for the others it says what there is to take over.

use std::time::Duration;

use tier0_core::orchestrator::Input;
use tier0_store::StoreHandle;

use crate::driver::Driver;

/// How often the one that acts looks where the store is decided for.
const NEAR_EVERY: Duration = Duration::from_secs(5);

/// Have the store decided for near to this orchestrator while it is the one that acts, until the
/// process ends.
pub async fn keep_near(store: StoreHandle, driver: Driver) {
    loop {
        tokio::time::sleep(NEAR_EVERY).await;
        if driver.look(|core, _| core.is_driving()).await == Some(true)
            && let Err(error) = store.draw_near().await
        {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::debug!(error, "the store stays where it is");
        }
    }
}

/// Read the record at half the interval at which agents are asked, until the process ends.
pub async fn keep_reading(store: StoreHandle, driver: Driver, interval: Duration) {
    let mut failing = false;
    loop {
        let begun = driver.moment();
        match store.load().await {
            Ok(Some(record)) => {
                if std::mem::take(&mut failing) {
                    tracing::info!("the store can be read again");
                }
                driver.input(Input::Read { record, begun });
            }
            Ok(None) => tracing::error!("the store has lost its record"),
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(
                        error = format!("{:#}", anyhow::Error::from(error)),
                        "the store cannot be read"
                    );
                }
            }
        }
        tokio::time::sleep(interval / 2).await;
    }
}
