//! The one or two copies of U-Boot's environment: which counts, what is damaged, which is written.

use std::io;

use vigil_durable::crash_point;

use super::claims::{Claims, Look, is_blank, not_ours};
use super::environment::{ACTIVE, Environment, Scheme, flag, newer};
use super::medium::Medium;

/// The copies as they were found.
pub(super) struct Copies {
    pub(super) media: Vec<Found>,
    /// The one that counts.
    current: Option<usize>,
}

/// A line of fw_env.config, opened if it could be.
pub(super) struct Opened {
    pub(super) name: String,
    /// By which it is known to be ours.
    pub(super) claim: String,
    pub(super) size: usize,
    pub(super) medium: io::Result<Box<dyn Medium>>,
}

pub(super) struct Found {
    pub(super) name: String,
    claim: String,
    is_blank: bool,
    size: usize,
    pub(super) medium: io::Result<Box<dyn Medium>>,
    flag: u8,
    environment: Result<Environment, String>,
}

impl Copies {
    /// Reads them and finds the one that counts.
    pub(super) fn read(media: Vec<Opened>) -> Self {
        let redundant = media.len() == 2;
        let find = |Opened { name, claim, size, medium }| {
            let copy = match &medium {
                Ok(medium) => medium.read().map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let (flag, is_blank, environment) = match copy {
                Ok(copy) => {
                    let environment = Environment::parse(&copy, redundant).map_err(str::to_owned);
                    (flag(&copy), is_blank(&copy), environment)
                }
                Err(error) => (0, false, Err(error)),
            };
            Found { name, claim, is_blank, size, medium, flag, environment }
        };
        let media: Vec<_> = media.into_iter().map(find).collect();
        let current = match media.as_slice() {
            [first, second] if first.environment.is_ok() && second.environment.is_ok() => {
                Some(newer(first.scheme(), [first.flag, second.flag]))
            }
            found => found.iter().position(|found| found.environment.is_ok()),
        };
        Self { media, current }
    }

    /// What the copy that counts holds.
    pub(super) fn environment(&self) -> Option<&Environment> {
        self.media[self.current?].environment.as_ref().ok()
    }

    /// Which copies are damaged.
    pub(super) fn damage(&self) -> Option<String> {
        let mut parts: Vec<_> = self
            .media
            .iter()
            .filter_map(|found| Some(format!("{}: {}", found.name, found.environment.as_ref().err()?)))
            .collect();
        if let Some(current) = self.current.filter(|_| !parts.is_empty()) {
            parts.push(format!("the copy at {} counts", self.media[current].name));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// Keeps that the copies which are valid are ours.
    pub(super) fn remember(&self, claims: &Claims) -> io::Result<()> {
        self.media
            .iter()
            .filter(|found| found.environment.is_ok())
            .try_for_each(|found| claims.keep(&found.claim))
    }

    /// Whether every copy was proven before.
    pub(super) fn are_remembered(&self, claims: &Claims) -> bool {
        self.media.iter().all(|found| claims.hold(&found.claim))
    }

    /// Sees that every copy is ours or nobody's: where one is another's, so may the next write's place be. `explain` says what else
    /// lies at a place, by its position.
    pub(super) fn check(&self, claims: &Claims, explain: impl Fn(usize) -> Option<String>) -> io::Result<()> {
        for (position, found) in self.media.iter().enumerate() {
            if let (false, Err(what)) = (claims.is_proven(&found.claim, found.look()), &found.environment) {
                let other = explain(position).map_or_else(String::new, |other| format!("; {other}"));
                return Err(not_ours(&found.name, &format!("{what}{other}")));
            }
        }
        Ok(())
    }

    /// Keeps that every copy is ours, before the first of them is written.
    pub(super) fn prove(&self, claims: &Claims) -> io::Result<()> {
        self.media.iter().try_for_each(|found| claims.prove(&found.claim, found.look()))
    }

    /// Writes the copy that does not count, which from then on does.
    pub(super) fn write(&self, point: &str, environment: &Environment) -> io::Result<()> {
        let target = match (self.media.as_slice(), self.current) {
            ([_, _], Some(current)) => &self.media[1 - current],
            (media, _) => &media[0],
        };
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", target.name));
        let medium = match &target.medium {
            Ok(medium) => medium,
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", target.name))),
        };
        let flag = (self.media.len() == 2).then(|| match (medium.scheme(), self.current) {
            (Scheme::Boolean, _) => ACTIVE,
            (Scheme::Counter, Some(current)) => self.media[current].flag.wrapping_add(1),
            (Scheme::Counter, None) => 1,
        });
        let copy = environment.to_copy(target.size, flag).ok_or_else(|| {
            named(io::Error::new(io::ErrorKind::StorageFull, "the variables do not fit into the environment"))
        })?;
        medium.write(point, &copy).map_err(named)?;
        if let (Scheme::Boolean, Some(current), [_, _]) =
            (medium.scheme(), self.current, self.media.as_slice())
        {
            crash_point(point, "flag");
            if let Ok(old) = &self.media[current].medium {
                old.mark_obsolete().map_err(named)?;
            }
        }
        Ok(())
    }
}

impl Found {
    fn look(&self) -> Look<'_> {
        match &self.environment {
            Ok(_) => Look::Valid,
            Err(_) if self.is_blank => Look::Blank,
            Err(what) => Look::Other(what),
        }
    }

    /// How this copy and another say which is newer.
    pub(super) fn scheme(&self) -> Scheme {
        self.medium.as_ref().map_or(Scheme::Counter, |medium| medium.scheme())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::environment::OBSOLETE;
    use crate::boot::medium::Nor;
    use crate::boot::medium::tests::SimulatedNor;

    fn nor_copies(flash: &SimulatedNor) -> Copies {
        let copy = |offset: u64| {
            let nor = Nor::new(flash.clone(), offset, 256, 512).unwrap();
            Opened {
                name: format!("{offset:#x}"),
                claim: String::new(),
                size: 256,
                medium: Ok(Box::new(nor)),
            }
        };
        Copies::read(vec![copy(0), copy(512)])
    }

    #[test]
    fn on_nor_flash_the_power_may_be_cut_after_any_byte_and_any_erase() {
        let flash = SimulatedNor::new(1024, 512);
        let order = |copies: &Copies| {
            copies.environment().map(|environment| environment.variables()["BOOT_ORDER"].clone())
        };
        let put = |value: &str| {
            let copies = nor_copies(&flash);
            let mut environment = copies.environment().cloned().unwrap_or_default();
            environment.put(&[("BOOT_ORDER".to_owned(), value.to_owned())], false);
            copies.write("test", &environment)
        };
        put("A B").unwrap();
        for (old, new) in [("A B", "A"), ("A", "B A"), ("B A", "B")] {
            let before = flash.bytes.borrow().clone();
            for power in 0.. {
                flash.bytes.borrow_mut().clone_from(&before);
                *flash.power.borrow_mut() = Some(power);
                let done = put(new).is_ok();
                *flash.power.borrow_mut() = None;
                let found = order(&nor_copies(&flash));
                assert!(found.as_deref() == Some(old) || found.as_deref() == Some(new), "{power}: {found:?}");
                if done {
                    assert_eq!(found.as_deref(), Some(new));
                    break;
                }
            }
        }
        let flags = [flash.bytes.borrow()[4], flash.bytes.borrow()[512 + 4]];
        assert!(flags == [ACTIVE, OBSOLETE] || flags == [OBSOLETE, ACTIVE], "{flags:?}");
    }
}
