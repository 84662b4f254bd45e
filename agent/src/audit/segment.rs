//! A segment file: a header line that holds the tree's right edge before it, then the entries, a line each. With the
//! edge in the header, what is left can still be verified after the oldest segments were dropped, and a start hashes
//! only the files there are.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use vigil_protocol::merkle::CompactRange;

const VERSION: u32 = 1;
/// A line's bytes at most: an entry is far smaller.
pub(super) const LINE_BYTES: usize = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Header {
    vigil_audit: u32,
    first: u64,
    peaks: Vec<String>,
}

pub(super) fn file_name(first: u64) -> String {
    format!("segment-{first:016}.jsonl")
}

/// The segments of a directory, oldest first, each with its first index.
pub(super) fn list(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let first = name
            .to_str()
            .and_then(|name| name.strip_prefix("segment-")?.strip_suffix(".jsonl")?.parse().ok());
        if let Some(first) = first {
            segments.push((first, entry.path()));
        }
    }
    segments.sort();
    Ok(segments)
}

pub(super) fn header(range: &CompactRange) -> io::Result<Vec<u8>> {
    let header = Header {
        vigil_audit: VERSION,
        first: range.size(),
        peaks: range.peaks().iter().map(|peak| HEXLOWER.encode(peak)).collect(),
    };
    let mut line = serde_json::to_vec(&header)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads lines with a limit on their length; the last one may be torn.
pub(super) struct Lines {
    reader: BufReader<File>,
}

/// A line of a segment.
pub(super) enum Line {
    /// Without its newline.
    Whole(Vec<u8>),
    /// The file ends in the middle of it.
    Torn,
}

impl Lines {
    /// Opens a segment and reads its header: the tree as it was before its first entry.
    pub(super) fn open(path: &Path) -> io::Result<(CompactRange, Self)> {
        let mut lines =
            Self { reader: BufReader::new(vigil_durable::open(path, File::options().read(true))?) };
        let damaged =
            |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()));
        let Some(Line::Whole(line)) = lines.next()? else { return Err(damaged("no header")) };
        let header: Header = serde_json::from_slice(&line).map_err(|_| damaged("its header is damaged"))?;
        if header.vigil_audit != VERSION {
            return Err(damaged("a version of tomorrow"));
        }
        let peaks =
            header.peaks.iter().map(|peak| HEXLOWER.decode(peak.as_bytes()).ok()?.try_into().ok()).collect();
        let range = Option::and_then(peaks, |peaks| CompactRange::from_parts(header.first, peaks));
        Ok((range.ok_or_else(|| damaged("its header is damaged"))?, lines))
    }

    /// The lines from a place on that begins one.
    pub(super) fn at(path: &Path, offset: u64) -> io::Result<Self> {
        let mut file = vigil_durable::open(path, File::options().read(true))?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(offset))?;
        Ok(Self { reader: BufReader::new(file) })
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        let mut line = Vec::new();
        let mut limited = io::Read::take(&mut self.reader, LINE_BYTES as u64 + 1);
        if limited.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.pop() == Some(b'\n') {
            return Ok(Some(Line::Whole(line)));
        }
        if line.len() >= LINE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line longer than any entry"));
        }
        Ok(Some(Line::Torn))
    }
}
