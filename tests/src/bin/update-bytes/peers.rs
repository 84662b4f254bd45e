//! What others fetch for the same pair.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};
use vigil_tests::files::FileServer;
use vigil_tests::image;

const BLOCK: usize = 4096;
/// RAUC compresses its bundles in blocks of this size, and fetches whole ones.
const BUNDLE_BLOCK: usize = 128 * 1024;

/// One way of bringing the new image.
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// Seconds to make what is served.
    pub(crate) made: f64,
    /// Seconds to fetch and put together, where that was done for real.
    pub(crate) fetched: Option<f64>,
}

/// All of them, and the figures that ours is held against.
#[derive(Default)]
pub(crate) struct Peers {
    pub(crate) all: Vec<Peer>,
    pub(crate) blocks: Option<u64>,
    pub(crate) bita: Option<u64>,
    pub(crate) patch: Option<u64>,
}

pub(crate) fn measure(directory: &Path, old: &Path, new: &Path) -> anyhow::Result<Peers> {
    let directory = directory.join("peers");
    std::fs::create_dir_all(&directory)?;
    let mut peers = Peers::default();
    let full = stream(&["-19", "-T0"], new)?;
    peers.all.push(Peer { name: "full image, zstd -19".to_owned(), ..full });
    let (blocks, bundle) = lacking_blocks(old, new, &directory)?;
    peers.all.push(bundle);
    for kib in [64, 16] {
        peers.all.push(casync(&directory, kib, old, new)?);
    }
    for kib in [64, 16, 8] {
        let peer = bita(&directory, kib, old, new)?;
        peers.bita = peers.bita.into_iter().chain([peer.bytes]).min();
        peers.all.push(peer);
    }
    peers.blocks = Some(blocks.bytes);
    peers.all.push(blocks);
    let patch = stream(&["-19", "--long=31", "--patch-from", path(old)?], new)?;
    peers.patch = Some(patch.bytes);
    peers.all.push(Peer { name: "zstd -19 --patch-from, old image in memory".to_owned(), ..patch });
    Ok(peers)
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is no text")
}

/// Counts what zstd makes of a file.
fn stream(arguments: &[&str], file: &Path) -> anyhow::Result<Peer> {
    eprintln!("zstd {} of {}", arguments.join(" "), file.display());
    let begun = Instant::now();
    let mut child = Command::new("zstd")
        .args(arguments)
        .args(["-q", "-c", path(file)?])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("zstd")?;
    let mut output = child.stdout.take().context("zstd has no output")?;
    let bytes = std::io::copy(&mut output, &mut std::io::sink())?;
    ensure!(child.wait()?.success(), "zstd failed");
    eprintln!("{bytes} bytes");
    Ok(Peer { name: String::new(), bytes, made: begun.elapsed().as_secs_f64(), fetched: None })
}

/// The blocks of the new image that the old one has nowhere, in one stream; and the bundle's blocks that they are in, as
/// RAUC would fetch them with its index of blocks.
fn lacking_blocks(old: &Path, new: &Path, directory: &Path) -> anyhow::Result<(Peer, Peer)> {
    let begun = Instant::now();
    let mut known = HashSet::from([hash(&[0; BLOCK])]);
    for_each_piece(old, BLOCK, |block| {
        known.insert(hash(block));
        Ok(())
    })?;
    let lacking = directory.join("lacking");
    let mut file = std::io::BufWriter::new(File::create(&lacking)?);
    let (mut bundle, mut blocks) = (0, 0);
    for_each_piece(new, BUNDLE_BLOCK, |piece| {
        let mut is_lacking = false;
        for block in piece.chunks(BLOCK) {
            blocks += 1;
            // Written once, wherever it is needed.
            if known.insert(hash(block)) {
                file.write_all(block)?;
                is_lacking = true;
            }
        }
        if is_lacking {
            bundle += zstd::bulk::compress(piece, 15)?.len() as u64;
        }
        Ok(())
    })?;
    file.into_inner()?.sync_all()?;
    // Its index has a SHA-256 for each block.
    let index: u64 = 32 * blocks;
    let bundle = Peer {
        name: "RAUC-like: 4 KiB blocks in 128 KiB (simulated)".to_owned(),
        bytes: bundle + index,
        made: begun.elapsed().as_secs_f64(),
        fetched: None,
    };
    let blocks = stream(&["-15"], &lacking)?;
    std::fs::remove_file(&lacking)?;
    Ok((Peer { name: "blocks that are lacking, one zstd -15, no index".to_owned(), ..blocks }, bundle))
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn for_each_piece(
    file: &Path,
    length: usize,
    mut work: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut file = std::io::BufReader::with_capacity(1 << 20, File::open(file)?);
    let mut piece = Vec::with_capacity(length);
    loop {
        piece.clear();
        if (&mut file).take(length as u64).read_to_end(&mut piece)? == 0 {
            return Ok(());
        }
        work(&piece)?;
    }
}

fn run(command: &mut Command) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(begun.elapsed().as_secs_f64())
}

/// casync's chunks that the old image's store has not, and the index.
fn casync(directory: &Path, kib: u32, old: &Path, new: &Path) -> anyhow::Result<Peer> {
    eprintln!("casync, chunks of {kib} KiB");
    let store = |which: &str| directory.join(format!("{which}.castr"));
    let make = |which: &str, image: &Path| -> anyhow::Result<(f64, PathBuf)> {
        let index = directory.join(format!("{which}.caibx"));
        let seconds = run(Command::new("casync")
            .arg("make")
            .arg(format!("--store={}", store(which).display()))
            .arg(format!("--chunk-size={}", kib * 1024))
            .args([&index, image]))?;
        Ok((seconds, index))
    };
    make("old", old)?;
    let (made, index) = make("new", new)?;
    let known: HashSet<_> = chunks(&store("old"))?.into_iter().map(|(name, _)| name).collect();
    let lacking: u64 = chunks(&store("new"))?
        .into_iter()
        .filter(|(name, _)| !known.contains(name))
        .map(|(_, bytes)| bytes)
        .sum();
    let bytes = lacking + index.metadata()?.len();
    eprintln!("{bytes} bytes");
    for which in ["old", "new"] {
        std::fs::remove_dir_all(store(which))?;
    }
    Ok(Peer { name: format!("casync, {kib} KiB chunks"), bytes, made, fetched: None })
}

/// The files of a store, with their sizes.
fn chunks(store: &Path) -> anyhow::Result<Vec<(std::ffi::OsString, u64)>> {
    let mut chunks = Vec::new();
    for directory in std::fs::read_dir(store)? {
        for chunk in std::fs::read_dir(directory?.path())? {
            let chunk = chunk?;
            chunks.push((chunk.file_name(), chunk.metadata()?.len()));
        }
    }
    Ok(chunks)
}

/// bita, cloned over HTTP with the old image as its seed.
fn bita(directory: &Path, kib: u32, old: &Path, new: &Path) -> anyhow::Result<Peer> {
    eprintln!("bita, chunks of {kib} KiB");
    let served = directory.join("served");
    std::fs::create_dir_all(&served)?;
    let (archive, output) = (served.join("new.cba"), directory.join("cloned"));
    let made = run(Command::new("bita")
        .args(["compress", "--force-create", "--compression", "brotli", "--compression-level", "5"])
        .args([
            "--avg-chunk-size",
            &format!("{kib}KiB"),
            "--min-chunk-size",
            &format!("{}KiB", (kib / 4).max(1)),
        ])
        .arg("-i")
        .arg(new)
        .arg(&archive))?;
    let server = FileServer::start(served.clone())?;
    let fetched = run(Command::new("bita")
        .args(["clone", "--force-create", "--seed"])
        .arg(old)
        .arg(format!("{}new.cba", server.url()))
        .arg(&output))?;
    let bytes = server.take_wire_bytes();
    eprintln!("{bytes} bytes");
    let length = new.metadata()?.len();
    ensure!(image::sha256(&output, length)? == image::sha256(new, length)?, "bita's clone is not the image");
    std::fs::remove_file(&output)?;
    std::fs::remove_file(&archive)?;
    Ok(Peer { name: format!("bita, {kib} KiB chunks, brotli 5"), bytes, made, fetched: Some(fetched) })
}
