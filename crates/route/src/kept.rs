//! What the agent keeps for a route that keeps no epoch itself: where it points and by which epoch, in
//! the pointer file, and until when an operation may last, beside it. What is older is refused here.

use std::net::SocketAddr;
use std::path::PathBuf;

use tier0_core::words::{Epoch, Region};

use crate::pointer::{self, Pointed};
use crate::{Attempt, RouteSettings, failed, held, refused};

/// An order to point, which may be obeyed.
pub(crate) struct Wanted {
    /// What the file has to say.
    pub pointed: Pointed,
    /// The node there.
    pub address: SocketAddr,
    /// The file says so already.
    pub is_noted: bool,
}

/// Whether what was pointed at forbids to point there by that epoch.
pub(crate) fn forbids(pointed: &Pointed, epoch: Epoch, to: &Region) -> bool {
    pointed.epoch > epoch || pointed.epoch == epoch && pointed.to != *to
}

impl RouteSettings {
    /// What pointing there comes to; an older epoch is refused.
    pub(crate) fn wanted(&self, epoch: Epoch, to: &Region) -> Attempt<Wanted> {
        let known = pointer::read(&self.route.pointer_file);
        let known = known.map_err(|error| failed(self.of_pointer(&error)))?;
        if let Some(known) = &known
            && forbids(known, epoch, to)
        {
            return Err(refused(
                "old-epoch",
                format!(
                    "the route points at {} by epoch {}, the order says {to} by epoch {epoch}",
                    known.to, known.epoch
                ),
            ));
        }
        let Some(address) = self.nodes.get(to).copied() else {
            return Err(failed(format!("the datastore has no node in {to}")));
        };
        let pointed = Pointed { epoch, to: to.clone() };
        let is_noted = known.as_ref() == Some(&pointed);
        Ok(Wanted { pointed, address, is_noted })
    }

    /// Put this text into the pointer file.
    pub(crate) fn note_pointer(&self, text: &str) -> Attempt<()> {
        let replaced = pointer::replace(&self.route.pointer_file, text);
        replaced.map_err(|error| failed(self.of_pointer(&error)))
    }

    /// The region whose node has this address.
    pub(crate) fn region_at(&self, address: SocketAddr) -> Option<Region> {
        let mut nodes = self.nodes.iter();
        nodes.find(|(_, node)| **node == address).map(|(region, _)| region.clone())
    }

    /// The file that says until when an operation may last.
    pub(crate) fn marker(&self) -> PathBuf {
        held::path(&self.route.pointer_file)
    }

    /// What is wrong with that file, for people.
    pub(crate) fn of_marker(&self, error: &std::io::Error) -> String {
        format!("{}: {error}", self.marker().display())
    }

    /// What is wrong with the pointer file, for people.
    pub(crate) fn of_pointer(&self, error: &std::io::Error) -> String {
        format!("{}: {error}", self.route.pointer_file.display())
    }
}
