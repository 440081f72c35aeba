//! Waiting without sleeping, for what is likely to come at once.
//!
//! A script and the broker may answer each other thousands of times a second. A thread that sleeps meanwhile is woken by the
//! kernel each time, and on a processor that has nothing else to do that may take as long as what it waits for. So who waits
//! stays awake for a moment. When that was in vain, it sleeps through the next waits, the more of them the more often that
//! happens, and through all of them once this has taken enough of the processor's time.

use std::{pin::pin, time::Duration};

use tokio::time::Instant;

/// Waits that are slept through after one that was long, at first.
const ASLEEP_MIN: u32 = 8;

/// How many that gets. Each time it is twice as many as before, and after a short wait half as many.
const ASLEEP_MAX: u32 = 1024;

pub(crate) struct Patience {
    /// How long it lasts, each time.
    each: Duration,
    /// How long it may last from now on.
    left: Duration,
    /// Waits that are slept through from now on.
    asleep: u32,
    /// How many it was the last time.
    last: u32,
}

impl Patience {
    pub(crate) fn new(each: Duration, left: Duration) -> Self {
        Self { each, left, asleep: 0, last: 0 }
    }

    /// Waits for something on a thread that has other tasks, which go on. Dropping this loses no more than dropping that.
    pub(crate) async fn wait<T>(&mut self, something: impl Future<Output = T>) -> T {
        let mut something = pin!(something);
        let begun = Instant::now();
        let outcome = loop {
            if !self.lasts(begun.elapsed()) {
                break something.await;
            }
            tokio::select! {
                biased;
                outcome = &mut something => break outcome,
                () = tokio::task::yield_now() => {}
            }
        };
        self.waited(begun.elapsed());
        outcome
    }

    /// Whether a wait that has taken this long goes on without sleep.
    pub(crate) fn lasts(&self, waited: Duration) -> bool {
        self.asleep == 0 && waited < self.each.min(self.left)
    }

    /// A wait is over, and how long it was.
    pub(crate) fn waited(&mut self, took: Duration) {
        if self.asleep > 0 {
            self.asleep -= 1;
            return;
        }
        self.left = self.left.saturating_sub(took.min(self.each));
        if took < self.each {
            self.last /= 2;
        } else {
            self.last = (self.last * 2).clamp(ASLEEP_MIN, ASLEEP_MAX);
            self.asleep = self.last;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: Duration = Duration::from_micros(50);
    const LESS: Duration = Duration::from_micros(49);

    #[test]
    fn it_lasts_while_waits_are_short() {
        let mut patience = Patience::new(EACH, Duration::MAX);
        for _ in 0..10_000 {
            assert!(patience.lasts(LESS));
            assert!(!patience.lasts(EACH), "and no longer than it may each time");
            patience.waited(LESS);
        }
    }

    #[test]
    fn what_was_awaited_in_vain_lets_the_next_waits_be_slept_through() {
        let mut patience = Patience::new(EACH, Duration::MAX);
        let mut slept_through = |took| {
            patience.waited(took);
            let mut count = 0;
            while !patience.lasts(Duration::ZERO) {
                patience.waited(EACH);
                count += 1;
            }
            count
        };
        let times: Vec<u32> = (0..10).map(|_| slept_through(EACH)).collect();
        assert_eq!(times, [8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024]);
        assert_eq!(slept_through(LESS), 0);
        assert_eq!(slept_through(EACH), 1024, "one was short");
        (0..20).for_each(|_| assert_eq!(slept_through(LESS), 0));
        assert_eq!(slept_through(EACH), ASLEEP_MIN, "most are short again");
    }

    #[test]
    fn it_takes_no_more_than_it_was_given() {
        let mut patience = Patience::new(EACH, 2 * EACH);
        for _ in 0..3 {
            assert!(patience.lasts(Duration::ZERO));
            patience.waited(LESS);
        }
        assert!(!patience.lasts(EACH - 3 * (EACH - LESS)), "of twice the time a little is left");
        patience.waited(LESS);
        assert!(!patience.lasts(Duration::ZERO), "it is spent");
    }

    #[tokio::test]
    async fn what_comes_late_is_awaited_asleep() {
        let mut patience = Patience::new(EACH, Duration::MAX);
        let late = async {
            tokio::time::sleep(40 * EACH).await;
            "late"
        };
        assert_eq!(patience.wait(late).await, "late");
        assert!(!patience.lasts(Duration::ZERO));
        assert_eq!(patience.wait(async { "at once" }).await, "at once");
    }
}
