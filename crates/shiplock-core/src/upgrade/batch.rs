//! The batch law: sizes 1, 2, 4, 8 … up to the bound, from 1 in each pool, also across pause and continue.

use crate::planted::{self, Bug};

/// The size limit of a batch by its ordinal in the pool, from 1.
///
/// The ordinal counts batches that were begun, whatever became of them, so that a pause never restarts the law.
pub fn size_limit(ordinal: u32, max_parallel: u32) -> u32 {
    if planted::is(Bug::BatchLawForgotten) {
        return max_parallel.max(1);
    }
    let doublings = ordinal.saturating_sub(1).min(31);
    (1u32 << doublings).min(max_parallel.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_double_up_to_the_bound() {
        let sizes = |max| (1..=6).map(|ordinal| size_limit(ordinal, max)).collect::<Vec<_>>();
        assert_eq!(sizes(10), [1, 2, 4, 8, 10, 10]);
        assert_eq!(sizes(1), [1, 1, 1, 1, 1, 1]);
        assert_eq!(sizes(3), [1, 2, 3, 3, 3, 3]);
    }

    proptest! {
        #[test]
        fn a_batch_is_never_empty_never_over_the_bound_and_at_most_twice_the_one_before(ordinal in 2u32..10_000, max in 0u32..200) {
            let size = size_limit(ordinal, max);
            prop_assert!(size >= 1 && size <= max.max(1));
            prop_assert!(size <= 2 * size_limit(ordinal - 1, max));
        }
    }
}
