//! What is in the data directory, by looking at it alone.

use std::path::Path;

use crate::durable;
use crate::settings::Paths;

/// What is in the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BaseDirectory {
    /// Nothing.
    Empty,
    /// Something that no server may be started on.
    Unusable,
    /// The data of a primary: there is no `standby.signal`.
    Primary,
    /// The data of a standby.
    Standby,
}

impl BaseDirectory {
    /// Look at it.
    pub(crate) fn look(paths: &Paths) -> Self {
        let empty = match std::fs::read_dir(&paths.data) {
            Ok(mut entries) => entries.next().is_none(),
            Err(_) => !paths.data.exists(),
        };
        let there = |path: &Path| path.exists();
        if empty {
            BaseDirectory::Empty
        } else if there(&paths.rewinding)
            || there(&paths.initialising)
            || !there(&paths.data.join("PG_VERSION"))
            || !there(&paths.data.join("global/pg_control"))
            // An interrupted base backup into it by hand, or a restored one that never started.
            || (there(&paths.data.join("backup_label"))
                && !there(&paths.data.join("standby.signal")))
        {
            BaseDirectory::Unusable
        } else if there(&paths.data.join("standby.signal")) {
            BaseDirectory::Standby
        } else {
            BaseDirectory::Primary
        }
    }
}

/// Make the next start of the data in `data` that of a standby.
pub(crate) async fn mark_standby(data: &Path) -> std::io::Result<()> {
    durable::write(&data.join("standby.signal"), "").await
}
