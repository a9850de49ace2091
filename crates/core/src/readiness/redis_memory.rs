//! The target Redis can hold what the master holds, and neither throws keys away.

use crate::words::DatastoreName;

use super::{Finding, Level, Question};

const CODE: &str = "redis-memory";

pub fn check(question: &Question, name: &DatastoreName) -> Finding {
    let finding = |level, sentence| Finding::new(CODE, level, Some(name), sentence);
    let old = question.redis(&question.old_node(name));
    let new = question.redis(&question.new_node(name));
    let (Some(old), Some(new)) = (old, new) else {
        return finding(Level::Unknown, "the memory of one node is not known".to_owned());
    };
    let finding = |level, sentence: String| {
        finding(level, sentence).number((old.used_memory / 1_000_000) as f64)
    };
    let megabytes = |bytes: u64| bytes / 1_000_000;
    let fits = |limit: u64| limit == 0 || limit >= old.used_memory;
    if !fits(new.maxmemory) {
        return finding(
            Level::Fail,
            format!(
                "the target may use {} MB, the master uses {} MB: keys would be evicted",
                megabytes(new.maxmemory),
                megabytes(old.used_memory)
            ),
        );
    }
    if old.evicted_keys > 0 {
        return finding(
            Level::Warn,
            format!("the master has evicted {} keys since it started", old.evicted_keys),
        );
    }
    finding(Level::Pass, format!("{} MB used, nothing evicted", megabytes(old.used_memory)))
}
