//! Routes can be told, and point at the writer. One that cannot is in nobody's way: its clients meet
//! errors in a move.

use crate::observe::{NodeView, ProcessState};
use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "route-not-ready";

pub fn check(question: &Question, name: &DatastoreName) -> Option<Finding> {
    let routes = question.settings.shape.routes.iter();
    let (mut good, mut broken, mut unknown) = (0, Vec::new(), Vec::new());
    for (id, _) in routes.filter(|(_, route)| route.datastore == *name) {
        let Some(NodeView::Route(view)) = question.view(id) else {
            unknown.push(format!("{id} is not known"));
            continue;
        };
        let at = view.to.as_ref().map_or("no region of the stack", |region| region.as_str());
        let error = view.error.as_deref().unwrap_or("no error was said");
        if view.process != ProcessState::Running {
            broken.push(format!("{id} does not answer: {error}"));
        } else if view.to.as_ref() != Some(&question.record.writer) {
            broken.push(format!("{id} points at {at}, the writer is {}", question.record.writer));
        } else if view.held {
            broken.push(format!("{id} holds {} clients", view.waiting));
        } else {
            good += 1;
        }
    }
    if good + broken.len() + unknown.len() == 0 {
        return None;
    }
    let finding = |level, sentence| Finding::new(CODE, level, Some(name), sentence);
    Some(if !broken.is_empty() {
        broken.extend(unknown);
        finding(Level::Warn, broken.join("; ")).number(good as f64)
    } else if !unknown.is_empty() {
        finding(Level::Unknown, unknown.join("; "))
    } else {
        let sentence = format!("{good} routes answer and point at {}", question.record.writer);
        finding(Level::Pass, sentence).number(good as f64)
    })
}
