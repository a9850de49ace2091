//! What the steps of a route order: hold before the point of no return, point at the new writer
//! after it, let clients go on; on the way back, let them go on where they were.
//!
//! No route holds an operation up: one whose agent does not answer is left as it is.

use std::time::Duration;

use crate::order::Order;
use crate::route::RouteOrder;
use crate::steps::Step;
use crate::words::{NodeId, Region};

use super::activity::Activity;
use super::input::Now;
use super::orders::skip;
use super::{Begin, Orchestrator};

impl Orchestrator {
    /// What beginning this step of a route comes to.
    pub(super) fn begin_on_route(
        &self,
        now: &Now,
        activity: &Activity,
        step: Step,
        route: &NodeId,
    ) -> Begin {
        let limits = &self.settings.limits;
        let Some(record) = &self.record else { return Begin::NotYet };
        let silent = self.seen.agent_silent(route.region(), now.moment, limits.cooperation);
        if let Some(why) = silent {
            return skip(why);
        }
        let send = |order: RouteOrder, limit: Duration| Begin::Send {
            node: route.clone(),
            order: Order::Route { order },
            limit,
        };
        let release = |to: &Region| {
            let order = RouteOrder::Release { epoch: record.epoch, to: to.clone() };
            send(order, limits.command)
        };
        match step {
            Step::HoldRoute => {
                // Where the writer is dead, what is open on it will not end well by waiting.
                let drain = if activity.cause.is_some() { Duration::ZERO } else { limits.drain };
                let order = RouteOrder::Hold {
                    drain_ms: drain.as_millis() as u64,
                    hold_ms: limits.hold.as_millis() as u64,
                };
                send(order, drain + limits.cooperation)
            }
            Step::SwitchRoute => {
                let to = activity.target.clone();
                send(RouteOrder::Switch { epoch: record.epoch, to }, limits.command)
            }
            Step::ReleaseRoute => release(&activity.target),
            Step::ResumeRoute => release(&activity.from),
            _ => skip("this step does not belong to a route"),
        }
    }
}
