//! One file's bytes between what is ours and what strangers cause. Pure.

/// How full a file of a log is, and with whose entries.
///
/// The file is full, and the next one begins, by our own entries alone. Strangers have a quarter of it to themselves, and
/// beyond that their entries are only counted: so nobody outside can push out an entry of ours, however much he sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    bytes: u64,
    own: u64,
    strangers: u64,
}

impl Share {
    /// A file that is to have `bytes` at most, and has none yet.
    pub fn new(bytes: u64) -> Self {
        Self { bytes, own: 0, strangers: 0 }
    }

    /// Counts an entry that is in the file.
    pub fn add(&mut self, bytes: u64, is_strangers: bool) {
        let share = if is_strangers { &mut self.strangers } else { &mut self.own };
        *share = share.saturating_add(bytes);
    }

    /// Whether an entry of a stranger has room.
    pub fn has_room_for_stranger(&self, bytes: u64) -> bool {
        self.strangers.saturating_add(bytes) <= self.bytes / 4
    }

    /// Whether the next file is to begin before an entry of ours.
    pub fn is_full(&self) -> bool {
        self.own >= self.bytes - self.bytes / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_have_a_quarter_and_fill_no_file() {
        let mut share = Share::new(1000);
        for _ in 0..1_000_000 {
            if share.has_room_for_stranger(100) {
                share.add(100, true);
            }
        }
        assert_eq!(share, Share { bytes: 1000, own: 0, strangers: 200 });
        assert!(share.has_room_for_stranger(50) && !share.has_room_for_stranger(51) && !share.is_full());
        share.add(749, false);
        assert!(!share.is_full());
        share.add(1, false);
        assert!(share.is_full());
    }
}
