//! The figures on the terminal, beside what the specification asks for and calls typical.

use super::outage;
use super::run::Section;
use super::summary::{Group, Row, SectionSummary, Summary};

/// What the specification says of a figure, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Specified {
    /// The column's name.
    pub name: &'static str,
    /// At most.
    pub target: f64,
    /// Usually.
    pub typical: f64,
}

/// The specification's columns, in its order.
pub const SPECIFIED: [Specified; 6] = [
    Specified { name: "health_check", target: 0.5, typical: 0.2 },
    Specified { name: "database_promotion", target: 2.0, typical: 1.2 },
    Specified { name: "redis_failover", target: 1.0, typical: 0.8 },
    Specified { name: "routing_update", target: 0.2, typical: 0.1 },
    Specified { name: "validation", target: 1.5, typical: 1.1 },
    Specified { name: "total", target: 5.0, typical: 3.4 },
];

/// What the specification says of a row.
pub fn specified(row: &Row) -> Option<Specified> {
    matches!(row.group, Group::Total | Group::Column)
        .then(|| SPECIFIED.into_iter().find(|one| one.name == row.name))
        .flatten()
}

/// All parts.
pub fn text(summary: &Summary) -> String {
    let machine = &summary.machine;
    let mut text = format!(
        "\n{} · {} cores, {} MiB, Linux {}, PostgreSQL {}, Redis {} · idle before {:.0} %, load \
         {:.2}\n{} PostgreSQL writers, {} Redis writers, {} writes/s each · milliseconds\n",
        summary.build.version,
        machine.cores,
        machine.memory_mib,
        machine.kernel,
        machine.postgres,
        machine.redis,
        machine.idle_before * 100.0,
        machine.load_before,
        summary.settings.postgres_writers,
        summary.settings.redis_writers,
        summary.settings.rate,
    );
    for section in &summary.sections {
        text.push_str(&section_text(section));
    }
    text.push_str(&outage::text(&summary.outages));
    for one in &summary.skipped {
        text.push_str(&format!("SKIPPED {one}\n"));
    }
    if let Some(why) = &summary.cut_short {
        text.push_str(&format!("\ncut short: {why}\n"));
    }
    text
}

fn section_text(section: &SectionSummary) -> String {
    let mut text = format!(
        "\n{}: {} of {} succeeded\n{:<38} {:>5} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}\n",
        section.section.title(),
        section.succeeded,
        section.runs,
        "",
        "runs",
        "min",
        "median",
        "p99",
        "max",
        "target",
        "typical"
    );
    let mut group = None;
    for row in &section.rows {
        if group.is_some_and(|group| group != row.group) {
            text.push('\n');
        }
        group = Some(row.group);
        text.push_str(&row_text(row));
    }
    if let Some(ledger) = &section.ledger {
        text.push_str(&format!("ledger: {}\n", ledger.text()));
    }
    if let (Section::LargeOpen, Some(committed)) = (section.section, section.open_committed) {
        text.push_str(&format!(
            "open transactions: {committed} of {} committed, the others ended by the switch\n",
            section.runs
        ));
    }
    for error in &section.errors {
        text.push_str(&format!("failed: {error}\n"));
    }
    text
}

fn row_text(row: &Row) -> String {
    let name = match row.group {
        Group::Client => format!("longest wait of a client, {}", row.name),
        Group::Unserved => format!("nobody was served, {}", row.name),
        Group::Total
        | Group::Column
        | Group::Span
        | Group::Step
        | Group::After
        | Group::Machine => row.name.clone(),
    };
    let figures = row.figures;
    let (target, typical) = specified(row).map_or_else(Default::default, |one| {
        (format!("{:.0}", one.target * 1_000.0), format!("{:.0}", one.typical * 1_000.0))
    });
    let line = format!(
        "{name:<38} {:>5} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {target:>8} {typical:>8}",
        figures.count, figures.min, figures.median, figures.p99, figures.max,
    );
    format!("{}\n", line.trim_end())
}
