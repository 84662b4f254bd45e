//! Any pair of images, cut in any way, with a device on which anything has changed and anything may be cut short: what is in the
//! slot in the end is the new image, to the byte.

mod content;
mod device;

use content::{Edit, Piece, build, edited, edits, noise, pieces, scaled};
use device::{Device, Mishap, Vendor};
use proptest::collection::vec;
use proptest::prelude::*;
use vigil_updater::release::Chunking;
use vigil_wire::OutcomeStatus;

/// What the target slot holds before.
#[derive(Clone, Copy, Debug)]
enum Before {
    Old,
    New,
    Noise,
    /// Of the new one, but with other bytes here and there: what an install cut short leaves.
    Part,
    Zeros,
}

#[derive(Clone, Debug)]
struct Case {
    old: Vec<Piece>,
    edits: Vec<Edit>,
    chunking: Chunking,
    patches: usize,
    before: Before,
    /// Whether there are maps of the slots, of before the damage.
    maps: (bool, bool),
    /// When, where in the running slot, and how many bytes of it change.
    damage: Vec<(u64, u16, u16)>,
    /// Where in the target slot bytes are others than its map says.
    target_damage: Vec<(u16, u16)>,
    kills: Vec<u64>,
    drops: Vec<u64>,
    /// Bytes that come at once.
    piece: usize,
}

fn case() -> impl Strategy<Value = Case> {
    let chunking = prop_oneof![
        prop::sample::select(vec![4096, 8192, 16384, 65536]).prop_map(Chunking::Aligned),
        prop::sample::select(vec![4096, 8192, 16384]).prop_map(Chunking::Content),
    ];
    let before =
        prop::sample::select(vec![Before::Old, Before::New, Before::Noise, Before::Part, Before::Zeros]);
    // Most installs take some dozens of turns.
    let turn = || 0..120_u64;
    let images = (pieces(), edits(), chunking, 0..2_usize);
    let device = (before, any::<(bool, bool)>(), vec((turn(), any::<u16>(), 1..5000_u16), 0..6));
    let mishaps = (vec((any::<u16>(), 1..5000_u16), 0..6), vec(turn(), 0..3), vec(turn(), 0..4));
    (images, device, mishaps, 1000..200_000_usize).prop_map(|(images, device, mishaps, piece)| Case {
        old: images.0,
        edits: images.1,
        chunking: images.2,
        patches: images.3,
        before: device.0,
        maps: device.1,
        damage: device.2,
        target_damage: mishaps.0,
        kills: mishaps.1,
        drops: mishaps.2,
        piece,
    })
}

fn damage(content: &mut [u8], places: &[(u16, u16)]) {
    for (place, length) in places {
        let begin = scaled(*place, content.len());
        let end = (begin + usize::from(*length)).min(content.len());
        content[begin..end].iter_mut().for_each(|byte| *byte ^= 0x5a);
    }
}

fn install(case: &Case) -> anyhow::Result<()> {
    let old = build(&case.old);
    let new = edited(&old, &case.edits);
    let directory = tempfile::tempdir()?;
    let mut vendor = Vendor::new(directory.path())?;
    vendor.publish(1, &old, case.chunking, 0)?;
    vendor.publish(2, &new, case.chunking, case.patches)?;

    let mut target = match case.before {
        Before::Old => old.clone(),
        Before::New | Before::Part => new.clone(),
        Before::Noise => noise(7).take(new.len()).collect(),
        Before::Zeros => vec![],
    };
    if matches!(case.before, Before::Part) {
        let half = target.len() / 2;
        target[half..].fill(0xee);
    }
    let mapped_target = target.clone();
    damage(&mut target, &case.target_damage);
    // A payload that is exactly as large as its slot, too.
    let slot = old.len().max(new.len()).max(target.len()) as u64;
    let device = Device::new(directory.path(), &old, &target, slot)?;
    if case.maps.0 {
        device.map("A", &old, case.chunking)?;
    }
    if case.maps.1 {
        device.map("B", &mapped_target, case.chunking)?;
    }
    let mut mishaps: Vec<_> = case.kills.iter().map(|turn| (*turn, Mishap::Kill)).collect();
    mishaps.extend(case.drops.iter().map(|turn| (*turn, Mishap::Drop)));
    mishaps.extend(case.damage.iter().map(|(turn, place, length)| {
        let begin = scaled(*place, old.len());
        let end = (begin + usize::from(*length)).min(old.len());
        (*turn, Mishap::Damage(begin, old[begin..end].iter().map(|byte| byte ^ 0xa5).collect()))
    }));
    let (content, status) = device.install(2, &mishaps, case.piece, new.len())?;
    let differs = content.iter().zip(&new).position(|(slot, image)| slot != image);
    anyhow::ensure!(differs.is_none(), "the slot differs from the image from byte {differs:?} on");
    // What the device tells of it is whole: every byte that was made has a source.
    let outcome = status.outcome.unwrap_or_default();
    if case.kills.is_empty() && outcome.write_bytes > 0 {
        let sources =
            [outcome.present_bytes, outcome.running_bytes, outcome.target_bytes, outcome.free_bytes];
        let made = sources.iter().sum::<u64>() + outcome.frame_bytes + outcome.patch_bytes;
        anyhow::ensure!(made == new.len() as u64, "{made} of {} bytes have a source: {outcome:?}", new.len());
    }
    Ok(())
}

#[test]
fn a_patch_that_does_not_fit_any_more_and_is_not_needed_is_done_without() {
    install(&Case {
        old: vec![Piece::Words(1, 400_000)],
        edits: vec![Edit::Overwrite(30_000, Piece::Words(2, 60_000))],
        chunking: Chunking::Aligned(8192),
        patches: 1,
        // All that the patch brings is here, and no map says so.
        before: Before::New,
        maps: (true, false),
        // What the patch starts from is not, behind the head, which is blank and comes from there.
        damage: (45..130).map(|place| (0, place * 500, 5000)).collect(),
        target_damage: vec![],
        kills: vec![],
        drops: vec![],
        piece: 20_000,
    })
    .unwrap();
}

/// Installs an image with compressed blocks on a device that has another one, when its patch's index was changed. Gives back what it
/// cost and the events.
fn install_packed(change: impl Fn(&mut Vec<u8>)) -> anyhow::Result<(OutcomeStatus, String)> {
    let image =
        |place| build(&[Piece::Noise(1, 50_000), Piece::Packed(1, 100_000, place), Piece::Noise(2, 9_000)]);
    let (old, new) = (image(1000), image(60_000));
    let directory = tempfile::tempdir()?;
    let mut vendor = Vendor::new(directory.path())?;
    let chunking = Chunking::Content(4096);
    vendor.publish(1, &old, chunking, 0)?;
    vendor.publish(2, &new, chunking, 1)?;
    vendor.change_patch_index(2, change)?;
    let device = Device::new(directory.path(), &old, &[], old.len().max(new.len()) as u64)?;
    device.map("A", &old, chunking)?;
    let (content, status) = device.install(2, &[], 20_000, new.len())?;
    anyhow::ensure!(content == new, "the slot is not the image");
    Ok((status.outcome.unwrap_or_default(), device.events()?))
}

#[test]
fn blocks_that_are_compressed_in_the_image_are_unpacked_and_packed_again() {
    let (outcome, _) = install_packed(|_| {}).unwrap();
    // Of what differs all blocks but those at the edges of units come as a few bytes of the file.
    assert!(outcome.patch_bytes > 50_000, "{outcome:?}");
    assert!(outcome.fetch_bytes * 4 < outcome.patch_bytes, "{outcome:?}");
}

#[test]
fn a_patch_for_another_version_of_zstd_is_not_used() {
    let (outcome, events) = install_packed(|index| index[12] ^= 1).unwrap();
    assert_eq!(outcome.patch_bytes, 0, "{outcome:?}");
    assert!(outcome.frame_bytes > 50_000 && !events.contains("patch.unusable"), "{outcome:?}");
}

#[test]
fn where_zstd_packs_otherwise_than_at_the_publisher_the_patch_is_given_up_at_once() {
    let (outcome, events) = install_packed(|index| index[16] = 1).unwrap();
    assert_eq!(outcome.patch_bytes, 0, "{outcome:?}");
    assert_eq!(events.matches("patch.unusable").count(), 1, "{events}");
}

/// Installs an image of several units, with other leaves, on blank devices, each of which is killed once, at another turn. Gives
/// back the most bytes that one of them fetched and in how many installs other frames were taken than were planned.
fn install_units(change: fn(&mut [u8]), kills: impl Iterator<Item = u64>) -> anyhow::Result<(u64, usize)> {
    let image = [1, 2, 3].map(|seed| build(&[Piece::Words(seed, 1_500_000)])).concat();
    let directory = tempfile::tempdir()?;
    let mut vendor = Vendor::new(directory.path())?;
    vendor.publish(1, &image, Chunking::Aligned(4096), 0)?;
    vendor.change_leaves(1, change)?;
    let (mut most, mut rerouted) = (0, 0);
    for kill in kills {
        let device = Device::new(directory.path(), &[], &[], image.len() as u64)?;
        let (content, status) = device.install(1, &[(kill, Mishap::Kill)], 200_000, image.len())?;
        anyhow::ensure!(content == image, "killed at turn {kill} the slot is not the image");
        most = most.max(status.outcome.unwrap_or_default().fetch_bytes);
        rerouted += usize::from(device.events()?.contains("install.rerouted"));
        device.discard()?;
    }
    Ok((most, rerouted))
}

/// The slot cannot be changed between two units, but what it should hold can.
fn with_another_hash_of_what_lies_before(leaf: &mut [u8]) {
    leaf[8] ^= u8::from(leaf[4..8] != [0; 4]);
}

#[test]
fn what_was_made_right_before_a_unit_is_not_read_back() {
    let (_, rerouted) = install_units(with_another_hash_of_what_lies_before, 0..1).unwrap();
    assert_eq!(rerouted, 0);
}

#[test]
fn where_the_slot_does_not_hold_what_was_written_before_a_unit_small_frames_make_it() {
    let (whole, rerouted) = install_units(|_| {}, (0..160).step_by(4)).unwrap();
    assert_eq!(rerouted, 0);
    // After a start nothing is in memory.
    let (small, rerouted) =
        install_units(with_another_hash_of_what_lies_before, (0..160).step_by(4)).unwrap();
    assert!(rerouted > 0 && small > whole, "{rerouted} {small} {whole}");
}

#[test]
fn frames_that_are_not_needed_are_done_without() {
    install(&Case {
        old: vec![Piece::Words(1, 500_000)],
        edits: vec![Edit::Overwrite(27_689, Piece::Words(2, 16_384))],
        chunking: Chunking::Aligned(16_384),
        patches: 0,
        // All that the frames bring is here, in the first half, and no map says so.
        before: Before::Part,
        maps: (false, false),
        damage: vec![],
        target_damage: vec![],
        kills: vec![],
        drops: vec![],
        piece: 82_997,
    })
    .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64),
        max_shrink_iters: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn whatever_a_device_holds_and_whatever_befalls_it_the_slot_is_the_new_image(case in case()) {
        install(&case).map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
    }
}
