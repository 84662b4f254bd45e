//! Who may do what over the local socket. Pure.

use super::Peer;

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To look.
    Read,
    /// To act.
    Act,
}

/// The groups that may, by number. A group that this system does not have lets nobody in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Members may look.
    pub readers: Option<u32>,
    /// Members may look and act.
    pub admins: Option<u32>,
}

impl Access {
    /// Whether `peer` may.
    pub fn allows(&self, peer: &Peer, need: Need) -> bool {
        let is_in =
            |group: Option<u32>| group.is_some_and(|group| peer.gid == group || peer.groups.contains(&group));
        peer.uid == 0
            || match need {
                Need::Read => is_in(self.readers) || is_in(self.admins),
                Need::Act => is_in(self.admins),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCESS: Access = Access { readers: Some(100), admins: Some(200) };

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer { uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn readers_look_admins_act_and_others_do_neither() {
        for (peer, read, act) in [
            (peer(0, 0, &[]), true, true),
            (peer(1, 100, &[]), true, false),
            (peer(1, 1, &[7, 100]), true, false),
            (peer(1, 200, &[]), true, true),
            (peer(1, 1, &[200]), true, true),
            (peer(1, 1, &[0]), false, false),
            (peer(100, 1, &[]), false, false),
        ] {
            assert_eq!(
                (ACCESS.allows(&peer, Need::Read), ACCESS.allows(&peer, Need::Act)),
                (read, act),
                "{peer:?}"
            );
        }
    }

    #[test]
    fn a_group_that_does_not_exist_lets_nobody_in_but_root() {
        assert!(!Access::default().allows(&peer(1, 1, &[1, 2, 3]), Need::Read));
        assert!(Access::default().allows(&peer(0, 5, &[]), Need::Act));
    }
}
