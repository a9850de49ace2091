//! Starting the server: as master over its own data (`RedisStart`), or as replica for `follow`.
//! Always fenced, and never as master over lost data (D3).

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::time::Duration;

use tier0_core::observe::RedisRole;
use tier0_core::order::Fact;

use crate::conf::{self, AppendOnly};
use crate::connection::{AskError, Batch};
use crate::disk::OnDisk;
use crate::info::ServerInfo;
use crate::node::{RedisNode, Run};
use crate::process;
use crate::switch::{PauseThen, known_position};
use crate::trouble::{Ran, Trouble};

/// Which start of the datastore it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// The very first: nothing is lost by starting empty.
    First,
    /// A later one.
    Again,
}

impl From<bool> for Start {
    fn from(first: bool) -> Self {
        if first { Start::First } else { Start::Again }
    }
}

impl RedisNode {
    /// `RedisStart`.
    pub(crate) async fn start(&self, run: &Run<'_>, which: Start) -> Ran {
        let id = &self.settings.id;
        if process::find(&self.place, &self.settings.redis.server_binary).is_none() {
            if self.files.look(&self.place) == OnDisk::Nothing && which == Start::Again {
                return Err(Trouble::refused(
                    "redis-data-lost",
                    format!(
                        "{} holds no data of {id}: a master started over it would empty its \
                         replicas",
                        self.place.directory.display()
                    ),
                ));
            }
            run.tell("starting the server");
            self.launch(None).await?;
        }
        let (info, fence) = self.loaded(run).await?;
        if info.role != Some(RedisRole::Master) {
            return Err(self.not_master(&info, "it can be promoted, but not started as master"));
        }
        self.append_as_configured(run).await?;
        let info =
            if fence == Some(0) { info } else { self.set_fence(run, 0, PauseThen::Ends).await? };
        self.remember(&info);
        Ok(Fact::RedisPromoted { position: known_position(&info)? })
    }

    /// Start the process, fenced.
    pub(crate) async fn launch(&self, upstream: Option<SocketAddr>) -> Result<(), Trouble> {
        let directory = &self.place.directory;
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(directory).map_err(|e| Trouble::file("create", directory, &e))?;
        if let Some(logs) = self.place.log_file.parent() {
            builder.create(logs).map_err(|e| Trouble::file("create", logs, &e))?;
        }
        let on_disk = self.files.look(&self.place);
        self.memory().in_step.starts_again(on_disk);
        let append_only = match (self.files.append_only, on_disk) {
            (true, OnDisk::Snapshot) => AppendOnly::OffWhileLoading,
            (true | false, _) => AppendOnly::AsConfigured,
        };
        let (settings, place) = (self.settings.clone(), self.place.clone());
        let write = move || {
            let parameters = &settings.redis.parameters;
            conf::write(parameters, &place, &settings.password, upstream, append_only)
        };
        self.conf_file
            .now(write)
            .await
            .ok_or_else(|| Trouble::Unknown("writing redis.conf was interrupted".into()))?
            .map_err(|e| Trouble::file("write", &self.place.conf_file(), &e))?;
        process::start(&self.place, &self.settings.redis.server_binary).await.map(|_| ())
    }

    /// Turn the append-only file on where it was off for loading an RDB.
    pub(crate) async fn append_as_configured(&self, run: &Run<'_>) -> Result<(), Trouble> {
        if self.files.append_only {
            let batch = Batch::new().tell(["CONFIG", "SET", "appendonly", "yes"]);
            self.control.ask(batch, run.left(self.settings.deadlines.answer)).await?;
        }
        Ok(())
    }

    /// Wait until the server answers and has loaded its data.
    pub(crate) async fn loaded(&self, run: &Run<'_>) -> Result<(ServerInfo, Option<u64>), Trouble> {
        let mut wait = Duration::from_millis(2);
        loop {
            let asked =
                self.look_closely(&self.control, run.left(self.settings.deadlines.answer)).await;
            let why = match asked {
                Ok((info, fence)) if !info.loading => return Ok((info, fence)),
                Ok(_) => "the server is loading its data".to_owned(),
                Err(error @ AskError::Server { .. }) => return Err(error.into()),
                Err(error) => error.to_string(),
            };
            let binary = &self.settings.redis.server_binary;
            if process::find(&self.place, binary).is_none() {
                return Err(Trouble::failed(format!(
                    "the server ended; its log says: {}",
                    process::log_since(&self.place.log_file, 0)
                )));
            }
            run.tell(why.clone());
            run.pause(wait, || why).await?;
            wait = (wait * 2).min(Duration::from_millis(100));
        }
    }
}
