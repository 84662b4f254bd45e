//! GRUB's environment block (grub-core/lib/envblk.c): a signature, lines `name=value` with `\` before what is special,
//! and `#` up to the end. It has no checksum, and GRUB overwrites it in place, sector by sector. Pure: what is to be
//! written is a list of sectors in the order in which they must reach the disk.

use super::variables::Variables;

const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";
/// What grub-editenv makes, and what a new block has.
pub(super) const BLOCK: usize = 1024;
/// The largest block that is read.
pub(super) const LARGEST: usize = 64 * 1024;
pub(super) const SECTOR: usize = 512;

/// A sector to write: its number in the block, and its bytes.
pub(super) type Write = (usize, Vec<u8>);

/// A line as it lies in the block.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    /// Empty for a comment.
    name: String,
    value: String,
    start: usize,
    end: usize,
}

/// The block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    bytes: Vec<u8>,
    lines: Vec<Line>,
}

impl Block {
    /// Takes a file apart as GRUB does, or says what is wrong with it.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self, &'static str> {
        if bytes.is_empty() {
            return Err("empty");
        }
        if bytes.len() < BLOCK || bytes.len() > LARGEST || !bytes.len().is_multiple_of(SECTOR) {
            return Err("no environment block has such a length");
        }
        if !bytes.starts_with(SIGNATURE) {
            return Err("it does not begin as an environment block does");
        }
        let mut lines = Vec::new();
        let mut at = SIGNATURE.len();
        while at < bytes.len() {
            let Some(line) = line_at(&bytes, at) else { break };
            at = line.end;
            lines.push(line);
        }
        Ok(Self { bytes, lines })
    }

    /// The variables. Of several of one name GRUB takes the last one.
    pub(super) fn variables(&self) -> Variables {
        let named = self.lines.iter().filter(|line| !line.name.is_empty());
        named.map(|line| (line.name.clone(), line.value.clone())).collect()
    }

    /// The writes that set our variables and keep the others, each line byte for byte. After every single one of them
    /// each of our variables has its old value or its new one, and all others have theirs; mostly there is one.
    pub(super) fn put(&self, ours: &[(String, String)]) -> Result<Vec<Write>, &'static str> {
        if let Some(sector) = self.in_place(ours) {
            return Ok(if sector == self.bytes[..SECTOR] { Vec::new() } else { vec![(0, sector)] });
        }
        let own: Vec<u8> = lines_of(ours);
        let foreign: Vec<&Line> =
            self.lines.iter().filter(|line| ours.iter().all(|(name, _)| *name != line.name)).collect();
        let all = foreign.iter().map(|line| self.text(line));
        let whole = [SIGNATURE, &own].into_iter().chain(all).collect::<Vec<_>>().concat();
        let used = self.bytes.iter().rposition(|byte| *byte != b'#').map_or(0, |at| at + 1);
        if whole.len() <= SECTOR && used <= SECTOR {
            return Ok(vec![(0, padded(whole)?)]);
        }
        if used > 2 * SECTOR {
            return Err("more than two sectors are in use: there is no safe order to change them in");
        }
        self.move_in(ours, &own, &foreign)
    }

    /// The first sector with our variables changed where they stand, if they all stand there and fit.
    fn in_place(&self, ours: &[(String, String)]) -> Option<Vec<u8>> {
        let mut sector = self.bytes[..SECTOR].to_vec();
        for (name, value) in ours {
            let mut lines = self.lines.iter().filter(|line| line.name == *name);
            let line = lines.next().filter(|line| line.end <= SECTOR)?;
            let room = line.end - 1 - (line.start + name.len() + 1);
            let fits = value.len() == room || (name == "ORDER" && value.len() < room);
            if !fits || lines.next().is_some() {
                return None;
            }
            let text = format!("{name}={value:room$}\n");
            sector[line.start..line.end].copy_from_slice(text.as_bytes());
        }
        Some(sector)
    }

    /// Ours go to the first sector although both are in use. The second sector is written first, with what leaves the
    /// first one and with ours as they are, which counts because it comes last; then the first sector; then ours
    /// leave the second one, and with that those in the first one count.
    fn move_in(
        &self,
        ours: &[(String, String)],
        own: &[u8],
        foreign: &[&Line],
    ) -> Result<Vec<Write>, &'static str> {
        // What begins the second sector ends the line that the old first sector leaves unfinished, and the comment
        // that the new one ends with. Half a name may be another variable's whole name, and with a '+' is nobody's.
        let crossing = self.lines.iter().find(|line| line.start < SECTOR && line.end > SECTOR);
        let joint: &[u8] = match crossing {
            None => b"#\n",
            Some(line) if line.name.is_empty() => b"\n",
            Some(line) => match &self.bytes[line.start..SECTOR] {
                name if !name.contains(&b'=') => b"+=\n",
                value if value.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1 => b"\\\n",
                _ => b"\n",
            },
        };
        let mut first = [SIGNATURE, own].concat();
        let mut moved = Vec::new();
        for line in foreign {
            // One byte is left for the comment. Their order stays: of two of one name the last one counts.
            if moved.is_empty() && line.end <= SECTOR && first.len() + self.text(line).len() < SECTOR {
                first.extend_from_slice(self.text(line));
            } else {
                moved.extend_from_slice(self.text(line));
            }
        }
        if first.len() >= SECTOR {
            return Err("our variables do not fit into a sector");
        }
        let old = ours.iter().filter_map(|(name, _)| self.lines.iter().rfind(|line| line.name == *name));
        let old: Vec<&[u8]> = old.map(|line| self.text(line)).collect();
        let transition = padded([joint, &moved, &old.concat()].concat())?;
        Ok(vec![(1, transition), (0, padded(first)?), (1, padded([joint, &moved].concat())?)])
    }

    fn text(&self, line: &Line) -> &[u8] {
        &self.bytes[line.start..line.end]
    }
}

/// The writes of a block that replaces what was none. The first sector, which makes it one, comes last.
pub(super) fn new_block(ours: &[(String, String)], length: usize) -> Result<Vec<Write>, &'static str> {
    let first = padded([SIGNATURE, &lines_of(ours)].concat())?;
    let others = (1..length / SECTOR).map(|number| (number, vec![b'#'; SECTOR]));
    Ok(others.chain([(0, first)]).collect())
}

fn padded(mut bytes: Vec<u8>) -> Result<Vec<u8>, &'static str> {
    if bytes.len() > SECTOR {
        return Err("the variables do not fit");
    }
    bytes.resize(SECTOR, b'#');
    Ok(bytes)
}

/// Names and values of ours need no `\`. The order has room for every slot, so that it never changes its length.
fn lines_of(ours: &[(String, String)]) -> Vec<u8> {
    let slots = ours.iter().filter_map(|(name, _)| name.strip_suffix("_OK"));
    let room = slots.map(|slot| slot.len() + 1).sum::<usize>().saturating_sub(1);
    let line = |(name, value): &(String, String)| {
        let room = if name == "ORDER" { room } else { 0 };
        format!("{name}={value:room$}\n")
    };
    ours.iter().map(line).collect::<String>().into_bytes()
}

/// The line that begins at `at`; `None` where GRUB would stop, too.
fn line_at(bytes: &[u8], at: usize) -> Option<Line> {
    let rest = &bytes[at..];
    if rest[0] == b'#' {
        let end = at + rest.iter().position(|byte| *byte == b'\n')? + 1;
        return Some(Line { name: String::new(), value: String::new(), start: at, end });
    }
    // As in GRUB a name goes up to the next '=', over line breaks if need be.
    let equals = rest.iter().position(|byte| *byte == b'=')?;
    let name = String::from_utf8_lossy(&rest[..equals]).into_owned();
    let (mut value, mut escaped) = (Vec::new(), false);
    for (index, byte) in rest.iter().enumerate().skip(equals + 1) {
        match byte {
            b'\\' if !escaped => escaped = true,
            b'\n' if !escaped => {
                let value = String::from_utf8_lossy(&value).into_owned();
                return Some(Line { name, value, start: at, end: at + index + 1 });
            }
            byte => {
                value.push(*byte);
                escaped = false;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(text: &str) -> Block {
        let mut bytes = [SIGNATURE, text.as_bytes()].concat();
        bytes.resize(BLOCK, b'#');
        Block::parse(bytes).unwrap()
    }

    fn ours(order: &str, a: &str, b: &str) -> Vec<(String, String)> {
        [("ORDER", order), ("A_OK", a), ("A_TRY", "0"), ("B_OK", b), ("B_TRY", "0")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    }

    fn after(block: &Block, writes: &[Write]) -> Block {
        let mut bytes = block.bytes.clone();
        for (sector, new) in writes {
            bytes[sector * SECTOR..][..SECTOR].copy_from_slice(new);
        }
        Block::parse(bytes).unwrap()
    }

    #[test]
    fn what_grub_editenv_makes_takes_our_variables_in_one_sector() {
        let fresh = block(
            "# WARNING: Do not edit this file by tools other than grub-editenv!!!\nsaved_entry=a\\\\b\n",
        );
        let writes = fresh.put(&ours("A B", "1", "1")).unwrap();
        assert_eq!(writes.len(), 1);
        let set = after(&fresh, &writes);
        assert!(
            set.bytes.starts_with(
                b"# GRUB Environment Block\nORDER=A B\nA_OK=1\nA_TRY=0\nB_OK=1\nB_TRY=0\n# WARN"
            )
        );
        assert_eq!(set.variables()["saved_entry"], "a\\b");
        let writes = set.put(&ours("A", "1", "0")).unwrap();
        assert_eq!(writes.len(), 1);
        assert_eq!(after(&set, &writes).variables()["ORDER"], "A  ");
        assert_eq!(after(&set, &writes).put(&ours("A", "1", "0")).unwrap(), []);
    }

    #[test]
    fn ours_move_into_the_first_sector_by_way_of_the_second_one() {
        let short = format!("OTHER=1\n{}", format!("x={}\n", "y".repeat(46)).repeat(9));
        let rest = SECTOR - SIGNATURE.len() - short.len() - "z=\nOTHER".len();
        let foreign = format!("{short}z={}\nOTHERS=yes\n", "y".repeat(rest));
        let old = block(&format!("{foreign}ORDER=B\nA_OK=0\nB_OK=1\n"));
        // Half of the one name is the other one: it must not be set by that.
        assert_eq!(&old.bytes[507..512], b"OTHER");
        let writes = old.put(&ours("A", "1", "0")).unwrap();
        assert_eq!(writes.iter().map(|(sector, _)| *sector).collect::<Vec<_>>(), [1, 0, 1]);
        for (count, order) in [(0, "B"), (1, "B"), (2, "B"), (3, "A  ")] {
            let variables = after(&old, &writes[..count]).variables();
            let found = ["ORDER", "OTHER", "OTHERS"].map(|name| variables[name].as_str());
            assert_eq!(found, [order, "1", "yes"], "{count}");
        }
    }

    #[test]
    fn a_block_whose_second_sector_is_full_or_of_more_than_two_used_sectors_is_refused() {
        let full = block(&format!("x={}\n", "y".repeat(980)));
        assert!(full.put(&ours("A B", "1", "1")).is_err());
        let mut bytes = [SIGNATURE, format!("x={}\n", "y".repeat(1100)).as_bytes()].concat();
        bytes.resize(2048, b'#');
        assert!(Block::parse(bytes).unwrap().put(&ours("A B", "1", "1")).is_err());
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for bytes in [vec![], vec![b'#'; 1024], SIGNATURE.to_vec(), [SIGNATURE, &[b'#'; 1024]].concat()] {
            assert!(Block::parse(bytes).is_err());
        }
    }

    /// Foreign lines and ours, so that any of them may lie on the border of the sectors.
    fn lines() -> impl Strategy<Value = String> {
        let foreign = (0..40_u32, "[a-z\\\\#= ]{0,60}")
            .prop_map(|(number, value)| format!("foreign_{number}={}\n", value.replace('\\', "\\\\")));
        let own = prop::sample::select(vec![
            "ORDER=B A\n",
            "ORDER=A\n",
            "A_OK=1\n",
            "B_OK=0\n",
            "B_TRY=2\n",
            "# note\n",
        ])
        .prop_map(str::to_owned);
        prop::collection::vec(prop_oneof![4 => foreign, 1 => own], 0..24).prop_map(|lines| {
            let mut text = lines.concat();
            while text.len() >= 900 {
                text.truncate(text[..text.len() - 1].rfind('\n').map_or(0, |at| at + 1));
            }
            text
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn after_each_sector_every_variable_has_its_old_or_its_new_value(text in lines()) {
            let old = block(&text);
            let new = ours("A", "1", "0");
            let Ok(writes) = old.put(&new) else { return Ok(()) };
            let is_ours = |name: &String| new.iter().any(|(own, _)| own == name);
            for count in 1..=writes.len() {
                let now = after(&old, &writes[..count]).variables();
                for (name, value) in old.variables() {
                    let value_now = now.get(&name);
                    let kept = value_now == Some(&value);
                    let is_new = new.iter().any(|(own, new)| {
                        *own == name && value_now.is_some_and(|now| now.trim_end() == new)
                    });
                    prop_assert!(kept || is_new, "{}/{}: {}: {:?}", count, writes.len(), name, value_now);
                }
                for name in now.keys().filter(|name| !is_ours(name)) {
                    // What ends the line that is cut is named as nothing in use is.
                    prop_assert!(
                        old.variables().contains_key(name) || count < writes.len(),
                        "{}", name
                    );
                }
            }
            let end = after(&old, &writes);
            for (name, value) in &new {
                prop_assert!(end.variables()[name].trim_end() == value);
            }
            // From then on one sector is enough.
            prop_assert!(end.put(&ours("B A", "1", "1")).unwrap().iter().all(|(sector, _)| *sector == 0)
                || text.contains("ORDER=A\n"));
        }

        #[test]
        fn no_bytes_make_it_panic(text in "[A-Z_=\\\\#\n ab\u{0}é]{0,200}", sectors in 2..4_usize) {
            let mut bytes = [SIGNATURE, text.as_bytes()].concat();
            bytes.resize(sectors * SECTOR, b'#');
            let block = Block::parse(bytes).unwrap();
            let _ = block.variables();
            if let Ok(writes) = block.put(&ours("A B", "1", "1")) {
                prop_assert!(after(&block, &writes).variables()["ORDER"].trim_end() == "A B");
            }
        }
    }
}
