//! Chance that can be repeated: every random test prints its seed, and `PLANB_SEED` takes it up again.

/// `SplitMix64`: small, and the same on every machine. <https://prng.di.unimi.it/splitmix64.c>
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `0..below`.
    pub fn below(&mut self, below: u64) -> u64 {
        self.next() % below.max(1)
    }

    pub fn below_usize(&mut self, below: usize) -> usize {
        usize::try_from(self.below(below as u64)).expect("it was a usize")
    }

    /// Dice of their own for somebody else.
    pub fn split(&mut self) -> Self {
        Self(self.next())
    }
}

/// `PLANB_SEED`, or a fresh one; printed either way.
pub fn seed() -> u64 {
    let given = std::env::var("PLANB_SEED").ok();
    let seed = given.map_or_else(rand::random, |text| text.parse().expect("PLANB_SEED is a number"));
    println!("seed: PLANB_SEED={seed}");
    seed
}
