//! A byte rate that all readers share.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Spreads bytes over time; waiting happens between pieces, when no lock is held.
#[derive(Debug)]
pub struct Limiter {
    bytes_per_second: Option<u64>,
    free_at: Mutex<Option<Instant>>,
}

impl Limiter {
    /// None: no limit.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            bytes_per_second,
            free_at: Mutex::new(None),
        }
    }

    /// Waits until `bytes` more are within the rate.
    pub async fn spend(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second.filter(|rate| *rate > 0) else {
            return;
        };
        // u64 to f64 loses nothing that matters below 2^53 bytes.
        #[expect(clippy::cast_precision_loss, reason = "a pause need not be exact")]
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let until = {
            let mut free_at = self.free_at.lock().await;
            let now = Instant::now();
            let until = free_at.map_or(now, |at| at.max(now)) + cost;
            *free_at = Some(until);
            until
        };
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_take_their_time_and_readers_share_it() {
        let limiter = Limiter::new(Some(1_000));
        let begun = Instant::now();
        tokio::join!(limiter.spend(1_000), limiter.spend(2_000));
        assert_eq!(begun.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nothing_waits() {
        let begun = Instant::now();
        Limiter::new(None).spend(u64::MAX).await;
        assert!(begun.elapsed().is_zero());
    }
}
