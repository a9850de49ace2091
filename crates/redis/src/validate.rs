//! `RedisValidate`: a real write and read on the node, under tier0's own prefix.

use tier0_core::order::Fact;

use crate::connection::{Batch, Door};
use crate::node::{RedisNode, Run};
use crate::reply::text;
use crate::trouble::{Ran, Trouble};

/// How long the key lives, in milliseconds.
const LIFETIME_MS: &str = "60000";

impl RedisNode {
    pub(crate) async fn validate(&self, run: &Run<'_>, token: &str) -> Ran {
        // A connection of its own: a write that is held would hold later orders behind it.
        let door = Door::new(self.place.address, Some(self.settings.password.clone()));
        let key = format!("tier0:validate:{}", self.settings.id);
        let batch = Batch::new().tell(["SET", &key, token, "PX", LIFETIME_MS]).tell(["GET", &key]);
        let replies = door.ask(batch, run.left(self.settings.deadlines.answer)).await?;
        match replies.get(1).and_then(text) {
            Some(read) if read == token => Ok(Fact::Nothing),
            Some(_) => Err(Trouble::failed(format!("{key} was read with another value"))),
            None => Err(Trouble::failed(format!("{key} was written and is not there"))),
        }
    }
}
