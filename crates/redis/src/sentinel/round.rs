//! Asking all Sentinels at once without waiting longer than it is worth for those that are gone.

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

/// What is left for the others once enough have answered and nobody in particular is waited for.
const GRACE: Duration = Duration::from_millis(20);

/// For whom a round waits once a majority has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// For nobody: more answers make no difference.
    Majority,
    /// For those that answered when they were asked last. A far one may need its round trip.
    Living,
    /// For all, until the deadline.
    Everyone,
}

/// Whether a Sentinel answered when it was asked last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Living,
    Gone,
}

/// The answers that came in time, in no order. A majority is `enough` answers for which `counts`.
pub(crate) async fn round<T>(
    questions: impl IntoIterator<Item = (Standing, impl Future<Output = T>)>,
    enough: usize,
    within: Duration,
    patience: Patience,
    counts: impl Fn(&T) -> bool,
) -> Vec<T> {
    let mut living = 0;
    let mut questions: FuturesUnordered<_> = questions
        .into_iter()
        .map(|(standing, question)| {
            living += usize::from(standing == Standing::Living);
            async move { (standing, question.await) }
        })
        .collect();
    let mut until = Instant::now() + within;
    let mut answers = Vec::new();
    let mut good = 0;
    while let Ok(Some((standing, answer))) = timeout_at(until, questions.next()).await {
        good += usize::from(counts(&answer));
        living -= usize::from(standing == Standing::Living);
        answers.push(answer);
        let waits = match patience {
            Patience::Majority => good < enough,
            Patience::Living => good < enough || living > 0,
            Patience::Everyone => true,
        };
        if !waits {
            until = until.min(Instant::now() + GRACE);
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn after(ms: u64) -> u64 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        ms
    }

    async fn asked(patience: Patience) -> Vec<u64> {
        let questions = [
            (Standing::Living, after(1)),
            (Standing::Living, after(2)),
            (Standing::Living, after(150)),
            (Standing::Gone, after(400)),
            (Standing::Gone, after(5_000)),
        ];
        round(questions, 2, Duration::from_millis(600), patience, |_| true).await
    }

    #[tokio::test]
    async fn a_round_waits_for_those_it_is_worth_waiting_for() {
        assert_eq!(asked(Patience::Majority).await, [1, 2]);
        assert_eq!(asked(Patience::Living).await, [1, 2, 150]);
        assert_eq!(asked(Patience::Everyone).await, [1, 2, 150, 400]);
    }
}
