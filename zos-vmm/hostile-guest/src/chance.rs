//! Numbers by chance, the same ones for a seed (xorshift64*).

pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn long(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        (self.long() >> 32) as u8
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.long() >> 16) % end
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// An odd value more often than chance would have it.
    pub(crate) fn value(&mut self) -> u64 {
        let any = self.long();
        self.pick(&[
            0,
            1,
            2,
            0xff,
            0xffff,
            0x8000,
            u64::MAX,
            u64::MAX - 1,
            1 << 31,
            1 << 63,
            any,
            any,
        ])
    }
}
