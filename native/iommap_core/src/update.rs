//! What may be done to a word, as C11 and `std::sync::atomic` name it.

/// An update of a word of 64 bits. Sums wrap around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// Replaces the word.
    Exchange(u64),
    /// Adds to it.
    Add(u64),
    /// Keeps the bits that are set in the operand.
    And(u64),
    /// Sets the bits that are set in the operand.
    Or(u64),
    /// Flips the bits that are set in the operand.
    Xor(u64),
    /// Replaces the word if it is what is expected.
    CompareExchange {
        /// What the word is expected to be.
        expected: u64,
        /// What it is then replaced by.
        new: u64,
    },
}

impl Update {
    /// What the update makes of such a word.
    #[inline(always)]
    pub fn applied_to(self, word: u64) -> u64 {
        match self {
            Update::Exchange(operand) => operand,
            Update::Add(operand) => word.wrapping_add(operand),
            Update::And(operand) => word & operand,
            Update::Or(operand) => word | operand,
            Update::Xor(operand) => word ^ operand,
            Update::CompareExchange { expected, new } if word == expected => new,
            Update::CompareExchange { .. } => word,
        }
    }
}
