//! Which devices `ls` lists: all conditions that are given must hold.

use clap::Args;
use glob::Pattern;

use crate::fleet::Overview;

/// The conditions.
#[derive(Args, Clone, Debug, Default)]
pub struct Filter {
    /// Only devices whose id is like this, e.g. 'room-4-*'
    #[arg(long, value_name = "GLOB")]
    pub device: Option<Pattern>,
    /// Only devices that are so
    #[arg(long, value_name = "STATUS", value_parser = ["online", "offline", "lost"])]
    pub status: Option<String>,
    /// Only devices that are in this group
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Only devices of this product
    #[arg(long, value_name = "NAME")]
    pub product: Option<String>,
    /// Only devices that run this release
    #[arg(long, value_name = "VERSION")]
    pub release: Option<String>,
    /// Only devices whose update engine is in this state, e.g. confirmed
    #[arg(long, value_name = "STATE")]
    pub update: Option<String>,
    /// Only devices with an open incident
    #[arg(long)]
    pub incident: bool,
}

impl Filter {
    /// Whether the device is listed. What it does not say of itself is like nothing.
    pub fn lets_through(&self, device: &str, overview: &Overview) -> bool {
        let is = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        // Behind the state stands how far it is.
        let state = overview.update.as_deref().and_then(|update| update.split(' ').next());
        self.device.as_ref().is_none_or(|pattern| pattern.matches(device))
            && is(&self.status, &overview.status)
            && is(&self.product, &overview.product)
            && is(&self.release, &overview.release)
            && self.update.as_deref().is_none_or(|wanted| state == Some(wanted))
            && self.group.as_ref().is_none_or(|group| overview.groups.contains(group))
            && (!self.incident || !overview.incidents.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overview() -> Overview {
        Overview {
            status: Some("online".into()),
            product: Some("videobar".into()),
            release: Some("1.2.0".into()),
            update: Some("writing 25%".into()),
            groups: vec!["floor-3".into()],
            ..Overview::default()
        }
    }
    fn lets(filter: &Filter) -> bool {
        filter.lets_through("room-4-12-bar", &overview())
    }

    #[test]
    fn without_conditions_every_device_is_listed() {
        assert!(lets(&Filter::default()));
        assert!(Filter::default().lets_through("silent", &Overview::default()));
    }

    #[test]
    fn each_condition_is_held_against_what_the_device_says() {
        let text = |text: &str| Some(text.to_owned());
        let device = |glob: &str| Filter { device: Some(glob.parse().unwrap()), ..Filter::default() };
        assert!(lets(&device("room-4-*")) && !lets(&device("room-5-*")) && !lets(&device("room")));
        for (right, wrong) in [
            (
                Filter { status: text("online"), ..Filter::default() },
                Filter { status: text("lost"), ..Filter::default() },
            ),
            (
                Filter { product: text("videobar"), ..Filter::default() },
                Filter { product: text("phone"), ..Filter::default() },
            ),
            (
                Filter { release: text("1.2.0"), ..Filter::default() },
                Filter { release: text("1.2"), ..Filter::default() },
            ),
            (
                Filter { update: text("writing"), ..Filter::default() },
                Filter { update: text("writing 25%"), ..Filter::default() },
            ),
            (
                Filter { group: text("floor-3"), ..Filter::default() },
                Filter { group: text("floor"), ..Filter::default() },
            ),
        ] {
            assert!(lets(&right), "{right:?}");
            assert!(!lets(&wrong), "{wrong:?}");
            assert!(!right.lets_through("silent", &Overview::default()), "{right:?}");
        }
    }

    #[test]
    fn conditions_are_combined_by_and() {
        let mut filter = Filter { status: Some("online".into()), incident: true, ..Filter::default() };
        assert!(!lets(&filter));
        let troubled = Overview { incidents: ["repository-frozen".to_owned()].into(), ..overview() };
        assert!(filter.lets_through("room-4-12-bar", &troubled));
        filter.status = Some("lost".into());
        assert!(!filter.lets_through("room-4-12-bar", &troubled));
    }
}
