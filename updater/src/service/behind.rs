//! What the updater remembers of the image that it makes.

use crate::release::BEFORE_BYTES;

/// The last bytes that were made of an image and are what was signed: what the next unit's frame is decoded with.
#[derive(Default)]
pub(super) struct Behind {
    image: usize,
    /// Where in the image they end.
    end: u64,
    /// [`BEFORE_BYTES`] at most.
    bytes: Vec<u8>,
}

impl Behind {
    /// These bytes, which end at `end`.
    pub(super) fn new(image: usize, end: u64, bytes: Vec<u8>) -> Self {
        Self { image, end, bytes }
    }

    /// Takes in the unit that begins at `offset`; what does not lie right before it is dropped.
    pub(super) fn push(&mut self, image: usize, offset: u64, unit: &[u8]) {
        if (self.image, self.end) != (image, offset) {
            self.bytes.clear();
        }
        (self.image, self.end) = (image, offset + unit.len() as u64);
        let most = BEFORE_BYTES as usize;
        let unit = &unit[unit.len().saturating_sub(most)..];
        let surplus = (self.bytes.len() + unit.len()).saturating_sub(most);
        self.bytes.drain(..surplus);
        self.bytes.reserve_exact(most - self.bytes.len());
        self.bytes.extend_from_slice(unit);
    }

    /// The last `length` bytes before `end`, if they are here.
    pub(super) fn last(&self, image: usize, end: u64, length: u32) -> Option<&[u8]> {
        let begin = self.bytes.len().checked_sub(length as usize)?;
        ((self.image, self.end) == (image, end)).then(|| &self.bytes[begin..])
    }

    /// Its memory, for other bytes.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = BEFORE_BYTES as usize;

    #[test]
    fn what_lies_before_a_unit_is_the_end_of_what_was_pushed_and_no_more_than_is_of_use() {
        let image: Vec<u8> = (0..3 * MOST as u32 / 4).flat_map(u32::to_le_bytes).collect();
        let mut behind = Behind::default();
        let mut begin = 0;
        for length in [1, 1000, MOST / 2, MOST, 10, MOST - 1] {
            behind.push(1, begin as u64, &image[begin..begin + length]);
            begin += length;
            let here = begin.min(MOST);
            for length in [0, 1, here / 2, here] {
                let last = behind.last(1, begin as u64, length as u32).unwrap();
                assert!(last == &image[begin - length..begin], "{length} before {begin}");
            }
            assert!(behind.last(1, begin as u64, here as u32 + 1).is_none());
            assert!(behind.bytes.capacity() <= MOST);
        }
    }

    #[test]
    fn bytes_of_another_place_or_image_are_not_what_lies_before_a_unit() {
        let mut behind = Behind::new(0, 10, vec![1; 10]);
        assert!(behind.last(0, 11, 4).is_none() && behind.last(1, 10, 4).is_none());
        for (image, offset) in [(0, 12), (1, 13)] {
            behind.push(image, offset, &[2]);
            assert_eq!(behind.last(image, offset + 1, 1), Some(&[2][..]));
            assert!(behind.last(image, offset + 1, 2).is_none());
        }
    }
}
