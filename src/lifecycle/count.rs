//! How many of something there are, and a way to wait until there are none.

use std::sync::Arc;

use tokio::sync::watch;

/// A number that goes up with each [`Counted`] and down when it is dropped. Clones count together.
#[derive(Clone)]
pub struct Count(Arc<watch::Sender<usize>>);

impl Default for Count {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Count {
    /// One more, until it is dropped.
    #[must_use]
    pub fn one_more(&self) -> Counted {
        self.0.send_modify(|number| *number += 1);
        Counted(self.clone())
    }

    /// Completes when there are none.
    pub async fn none(&self) {
        let _ = self.0.subscribe().wait_for(|number| *number == 0).await;
    }
}

/// One of what is counted.
pub struct Counted(Count);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.send_modify(|number| *number -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_none_when_the_last_one_is_dropped() {
        let count = Count::default();
        let (first, second) = (count.one_more(), count.clone().one_more());
        drop(first);
        let none = count.none();
        tokio::pin!(none);
        assert!(futures_util::poll!(&mut none).is_pending());
        drop(second);
        none.await;
    }
}
