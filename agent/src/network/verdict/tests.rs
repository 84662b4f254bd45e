use super::*;
use proptest::prelude::*;

/// One line a case: evidence as `layer[/partner]=outcome:code`, then what must come out.
const CASES: &[(&str, &str, FaultDomain, &[&str])] = &[
    ("everything works", "if=ok gw=ok dns/a=ok tcp/a=ok tls/a=ok", FaultDomain::None, &[]),
    (
        "a router that answers no ping is fine when partners work",
        "if=ok gw=failed:timeout dns/a=ok tcp/a=ok",
        FaultDomain::None,
        &[],
    ),
    ("an unused interface is no fault", "if=skipped:no_carrier if=ok gw=ok tcp/a=ok", FaultDomain::None, &[]),
    ("no carrier", "if=failed:no_carrier gw=skipped dns/a=failed:timeout", FaultDomain::Device, &[]),
    (
        "no address",
        "if=failed:no_address gw=skipped dns/a=failed:no_resolver tcp/b=failed:no_route",
        FaultDomain::Device,
        &[],
    ),
    ("no route", "if=ok if=failed:no_route gw=skipped tcp/a=failed:no_route", FaultDomain::Device, &[]),
    ("no route but an on-link partner works", "if=ok if=failed:no_route tcp/a=ok", FaultDomain::None, &[]),
    ("the router is dead", "if=ok gw=failed:unreachable dns/a=failed:timeout", FaultDomain::Lan, &[]),
    (
        "the router is dead, addresses are literal",
        "if=ok gw=failed:unreachable tcp/a=failed:timeout tcp/b=failed:unreachable",
        FaultDomain::Lan,
        &[],
    ),
    ("the router is dead and nothing else is configured", "if=ok gw=failed:timeout", FaultDomain::Lan, &[]),
    (
        "one of two routers is dead",
        "if=ok gw=ok gw=failed:timeout tcp/a=failed:timeout",
        FaultDomain::Internet,
        &[],
    ),
    ("resolver silent", "if=ok gw=ok dns/a=failed:timeout dns/b=failed:timeout", FaultDomain::Dns, &[]),
    ("resolver fails", "if=ok gw=ok dns/a=failed:server_failure", FaultDomain::Dns, &[]),
    ("no resolver", "if=ok gw=ok dns=failed:no_resolver dns/a=failed:no_resolver", FaultDomain::Dns, &[]),
    (
        "no name is known to the resolver",
        "if=ok gw=ok dns/a=failed:name_not_found dns/b=failed:name_not_found",
        FaultDomain::Dns,
        &[],
    ),
    (
        "resolver silent while a literal address works",
        "if=ok gw=ok dns/a=failed:timeout tcp/b=ok",
        FaultDomain::Dns,
        &[],
    ),
    (
        "the name to resolve does not, partners work by address",
        "if=ok gw=ok dns=failed:timeout tcp/b=ok",
        FaultDomain::Dns,
        &[],
    ),
    ("second resolver dead", "if=ok gw=ok dns/a=ok dns/a=warning:timeout tcp/a=ok", FaultDomain::None, &[]),
    (
        "internet down, cached names",
        "if=ok gw=ok dns/a=ok dns/b=ok tcp/a=failed:timeout tcp/b=failed:unreachable",
        FaultDomain::Internet,
        &[],
    ),
    ("internet down, one partner", "if=ok gw=ok dns/a=ok tcp/a=failed:timeout", FaultDomain::Internet, &[]),
    (
        "internet down, resolver outside",
        "if=ok gw=ok dns/a=failed:timeout tcp/b=failed:timeout",
        FaultDomain::Internet,
        &[],
    ),
    (
        "a firewall that resets everything",
        "if=ok gw=ok tcp/a=failed:refused tcp/b=failed:refused",
        FaultDomain::Internet,
        &[],
    ),
    (
        "a proxy that intercepts everything",
        "if=ok gw=ok tcp/a=ok tls/a=failed:certificate tcp/b=ok tls/b=failed:certificate",
        FaultDomain::Internet,
        &[],
    ),
    ("router not probed", "if=ok gw=skipped tcp/a=failed:timeout", FaultDomain::Internet, &[]),
    (
        "one partner's port closed",
        "if=ok gw=ok tcp/a=ok tls/a=ok tcp/b=failed:refused",
        FaultDomain::Partner,
        &["b"],
    ),
    ("one partner silent", "if=ok gw=ok tcp/a=ok tcp/b=failed:timeout", FaultDomain::Partner, &["b"]),
    (
        "one partner's certificate is wrong",
        "if=ok gw=ok tcp/a=ok tls/a=ok tcp/b=ok tls/b=failed:certificate",
        FaultDomain::Partner,
        &["b"],
    ),
    (
        "one partner's name is gone",
        "if=ok gw=ok dns/a=ok tcp/a=ok dns/b=failed:name_not_found",
        FaultDomain::Partner,
        &["b"],
    ),
    ("the only partner refuses", "if=ok gw=ok dns/a=ok tcp/a=failed:refused", FaultDomain::Partner, &["a"]),
    (
        "the only partner's handshake fails",
        "if=ok gw=ok tcp/a=ok tls/a=failed:handshake",
        FaultDomain::Partner,
        &["a"],
    ),
    (
        "a refusal outweighs a silent router",
        "if=ok gw=failed:timeout tcp/a=failed:refused",
        FaultDomain::Partner,
        &["a"],
    ),
    ("nothing configured", "if=ok gw=ok", FaultDomain::Inconclusive, &[]),
    ("no evidence at all", "", FaultDomain::Inconclusive, &[]),
    ("only a name to resolve", "if=ok gw=ok dns=ok", FaultDomain::None, &[]),
];

fn parse(text: &str) -> Vec<Evidence> {
    let one = |word: &str| {
        let (subject, result) = word.split_once('=').unwrap();
        let (layer, partner) =
            subject.split_once('/').map_or((subject, None), |(l, p)| (l, Some(p.to_owned())));
        let (outcome, code) = result.split_once(':').unwrap_or((result, "ok"));
        Evidence {
            layer: match layer {
                "if" => Layer::Interface,
                "gw" => Layer::Gateway,
                "dns" => Layer::Dns,
                "tcp" => Layer::Tcp,
                "tls" => Layer::Tls,
                other => panic!("{other}"),
            },
            subject: subject.to_owned(),
            partner,
            outcome: serde_json::from_value(outcome.into()).unwrap(),
            code: code.to_owned(),
            message: word.to_owned(),
            millis: None,
        }
    };
    text.split_whitespace().map(one).collect()
}

#[test]
fn each_picture_of_evidence_has_its_verdict() {
    for (name, evidence, domain, partners) in CASES {
        let found = verdict(&parse(evidence));
        let partners: Vec<String> = partners.iter().map(|partner| (*partner).to_owned()).collect();
        assert_eq!((found.domain, found.partners), (*domain, partners), "{name}");
        assert!(!found.summary.is_empty() && !found.advice.is_empty());
    }
}

fn any_evidence() -> impl Strategy<Value = Vec<Evidence>> {
    let word = (
        proptest::sample::select(vec![
            "if", "gw", "dns", "dns/a", "dns/b", "tcp/a", "tcp/b", "tls/a", "tls/b",
        ]),
        proptest::sample::select(vec![
            "ok",
            "warning",
            "failed:timeout",
            "failed:refused",
            "skipped",
            "failed:name_not_found",
        ]),
    );
    proptest::collection::vec(word, 0..12).prop_map(|words| {
        let words: Vec<String> =
            words.into_iter().map(|(subject, result)| format!("{subject}={result}")).collect();
        parse(&words.join(" "))
    })
}

proptest! {
    #[test]
    fn every_picture_has_a_verdict_and_only_a_broken_partner_is_blamed(evidence in any_evidence()) {
        let found = verdict(&evidence);
        prop_assert_eq!(found.domain == FaultDomain::Partner, !found.partners.is_empty());
        for partner in &found.partners {
            let blamed = |e: &Evidence| e.partner.as_ref() == Some(partner) && e.outcome == Outcome::Failed;
            prop_assert!(evidence.iter().any(blamed));
        }
    }

    #[test]
    fn where_nothing_failed_nobody_is_blamed(evidence in any_evidence()) {
        if evidence.iter().all(|e| e.outcome != Outcome::Failed) {
            prop_assert!(matches!(verdict(&evidence).domain, FaultDomain::None | FaultDomain::Inconclusive));
        }
    }
}
