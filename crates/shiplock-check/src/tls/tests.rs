//! The vectors of certificates: each as an API server judges it, for webhooks, conversion webhooks and aggregated APIs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use serde_json::json;
use shiplock_core::language::Language;

use super::*;
use crate::question::Profile;
use crate::snapshot::Read;

const NAME: &str = "hook.shop.svc";

fn now() -> Timestamp {
    "2026-11-24T00:00:00Z".parse().unwrap()
}

/// Certificates last from 2026 to 2028 unless a case says otherwise.
fn params(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2028, 1, 1);
    params
}

fn authority(common_name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = params(common_name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A chain, and `caBundle` for it.
struct Shown {
    chain: Vec<String>,
    bundle: String,
}

fn signed(params: CertificateParams) -> Shown {
    let authority = authority("ca");
    let leaf = params.signed_by(&KeyPair::generate().unwrap(), &authority).unwrap();
    Shown { chain: vec![STANDARD.encode(leaf.der())], bundle: STANDARD.encode(authority.pem()) }
}

fn self_signed(params: CertificateParams) -> Shown {
    let leaf = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    Shown { chain: vec![STANDARD.encode(leaf.der())], bundle: STANDARD.encode(leaf.pem()) }
}

fn of(outcome: TlsOutcome, bundle: &str, policy: &str) -> Vec<String> {
    let mut snapshot = Snapshot::blank("https://x", "v1.36.3", now());
    let client = json!({ "service": { "namespace": "shop", "name": "hook" }, "caBundle": bundle });
    snapshot.objects.validating = Read::Seen(
        serde_json::from_value(json!([{
            "metadata": { "name": "shop" },
            "webhooks": [{ "name": "check.shop", "failurePolicy": policy, "clientConfig": client, "rules": [{}] }],
        }]))
        .unwrap(),
    );
    let target = TlsTarget { host: NAME.to_owned(), port: 443, server_name: NAME.to_owned() };
    snapshot.dialled = vec![Dialled { target, via: "pod shop/hook-0".to_owned(), address: None, outcome }];
    words(&snapshot)
}

fn question() -> Question {
    Question {
        target: "1.37".parse().unwrap(),
        current: "1.36".parse().ok(),
        profile: Profile::Default,
        now: now(),
        max_parallel: 10,
    }
}

fn words(snapshot: &Snapshot) -> Vec<String> {
    let found = judge(snapshot, &question());
    for finding in &found {
        for language in [Language::En, Language::Zh] {
            let (text, fix) = (finding.text(language), finding.fix(language));
            assert!(!text.contains('{') && !fix.contains('{'), "{finding:?}: {text} | {fix}");
        }
    }
    found.iter().map(|found| format!("{:?} {} {}", found.outcome, found.check, found.sentence)).collect()
}

fn presented(shown: Shown) -> Vec<String> {
    of(TlsOutcome::Presented { chain: shown.chain }, &shown.bundle, "Fail")
}

#[test]
fn certificates_that_an_api_server_takes_give_no_finding() {
    for names in [&[NAME][..], &["*.shop.svc"], &["other", "HOOK.shop.svc"]] {
        assert_eq!(presented(signed(params("x", names))), [""; 0], "{names:?}");
    }
    assert_eq!(presented(self_signed(params("x", &[NAME]))), [""; 0], "its own authority");
    // Over an intermediate that the backend shows.
    let root = authority("root");
    let mut middle = params("middle", &[]);
    middle.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let middle_key = KeyPair::generate().unwrap();
    let middle_der = middle.signed_by(&middle_key, &root).unwrap();
    let issuer = rcgen::Issuer::new(middle, middle_key);
    let leaf = params("x", &[NAME]).signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    let chain = vec![STANDARD.encode(leaf.der()), STANDARD.encode(middle_der.der())];
    let bundle = STANDARD.encode(root.pem());
    assert_eq!(presented(Shown { chain: chain.clone(), bundle: bundle.clone() }), [""; 0]);
    assert_eq!(presented(Shown { chain: chain[..1].to_vec(), bundle }), ["Fail WHK-003 untrusted"], "it is not shown");
    // Without caBundle the authorities of the API server's machine count, which are not known here: that is no "good".
    let without = Shown { bundle: String::new(), ..signed(params("x", &[NAME])) };
    assert_eq!(presented(without), ["Unknown WHK-003 not-seen"]);
}

/// A leaf under an authority that was changed, and, where one is asked for, another one between them.
fn under(change: impl Fn(&mut CertificateParams), is_between: bool) -> Shown {
    chained(change, is_between.then_some(|_: &mut CertificateParams| {}))
}

/// The same with a change of the one between them.
fn chained(change: impl Fn(&mut CertificateParams), change_between: Option<impl Fn(&mut CertificateParams)>) -> Shown {
    let mut root = params("root", &[]);
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut root);
    let root_key = KeyPair::generate().unwrap();
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let root = rcgen::Issuer::new(root, root_key);
    let leaf = params("x", &[NAME]);
    let key = KeyPair::generate().unwrap();
    let chain = if let Some(change_between) = change_between {
        let mut middle = params("middle", &[]);
        middle.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change_between(&mut middle);
        let middle_key = KeyPair::generate().unwrap();
        let middle_der = middle.signed_by(&middle_key, &root).unwrap();
        let middle = rcgen::Issuer::new(middle, middle_key);
        vec![STANDARD.encode(leaf.signed_by(&key, &middle).unwrap().der()), STANDARD.encode(middle_der.der())]
    } else {
        vec![STANDARD.encode(leaf.signed_by(&key, &root).unwrap().der())]
    };
    Shown { chain, bundle: STANDARD.encode(root_pem) }
}

#[test]
fn an_authority_whose_key_usage_is_not_to_sign_is_none() {
    use rcgen::KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign};
    let usage =
        |usages: &'static [rcgen::KeyUsagePurpose]| move |one: &mut CertificateParams| one.key_usages = usages.to_vec();
    let plain = |_: &mut CertificateParams| {};
    let no_authority = |one: &mut CertificateParams| one.is_ca = IsCa::NoCa;
    for (usages, expected) in [
        (&[][..], None),
        (&[KeyCertSign, CrlSign], None),
        (&[DigitalSignature], Some("Fail WHK-003 untrusted")),
        (&[CrlSign, DigitalSignature], Some("Fail WHK-003 untrusted")),
    ] {
        let expected: Vec<&str> = expected.into_iter().collect();
        assert_eq!(presented(under(usage(usages), false)), expected, "{usages:?}");
        assert_eq!(presented(chained(plain, Some(usage(usages)))), expected, "{usages:?} between");
    }
    for no_authority in [no_authority, |one: &mut CertificateParams| one.is_ca = IsCa::ExplicitNoCa] {
        assert_eq!(presented(under(no_authority, false)), ["Fail WHK-003 untrusted"]);
        assert_eq!(presented(chained(plain, Some(no_authority))), ["Fail WHK-003 untrusted"]);
    }
}

#[test]
fn an_authority_signs_for_what_its_extensions_let_it_sign() {
    use rcgen::{CustomExtension, GeneralSubtree, NameConstraints};
    let pathlen = |most| move |root: &mut CertificateParams| root.is_ca = IsCa::Ca(BasicConstraints::Constrained(most));
    let names = |permitted: &'static str, excluded: &'static str| {
        move |root: &mut CertificateParams| {
            let trees = |name: &str| match name {
                "" => Vec::new(),
                name => vec![GeneralSubtree::DnsName(name.to_owned())],
            };
            let (permitted_subtrees, excluded_subtrees) = (trees(permitted), trees(excluded));
            root.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees });
        }
    };
    let usage = |usage: ExtendedKeyUsagePurpose| {
        move |root: &mut CertificateParams| root.extended_key_usages = vec![usage.clone()]
    };
    let critical = |root: &mut CertificateParams| {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(true);
        root.custom_extensions = vec![extension];
    };
    let untrusted = ["Fail WHK-003 untrusted"];
    assert_eq!(presented(under(pathlen(0), false)), [""; 0]);
    assert_eq!(presented(under(pathlen(0), true)), untrusted, "no authority may be between");
    assert_eq!(presented(under(pathlen(1), true)), [""; 0]);
    for name in ["shop.svc", ".svc", NAME] {
        assert_eq!(presented(under(names(name, ""), true)), [""; 0], "{name}");
        assert_eq!(presented(under(names("", name), true)), untrusted, "{name}");
    }
    for name in ["other.svc", "op.svc", ".hook.shop.svc"] {
        assert_eq!(presented(under(names(name, ""), false)), untrusted, "{name}");
        assert_eq!(presented(under(names("", name), false)), [""; 0], "{name}");
    }
    assert_eq!(presented(under(usage(ExtendedKeyUsagePurpose::ClientAuth), false)), untrusted);
    assert_eq!(presented(under(usage(ExtendedKeyUsagePurpose::ServerAuth), false)), [""; 0]);
    assert_eq!(presented(under(critical, false)), untrusted);
}

#[test]
fn each_fault_of_a_certificate_has_its_finding() {
    assert_eq!(presented(signed(params(NAME, &[]))), ["Fail WHK-001 no-san"], "a common name only");
    assert_eq!(presented(self_signed(params(NAME, &[]))), ["Fail WHK-001 no-san"]);
    assert_eq!(presented(signed(params(NAME, &["other.shop.svc"]))), ["Fail WHK-001 wrong-san"]);
    assert_eq!(presented(signed(params(NAME, &["10.0.0.1"]))), ["Fail WHK-001 wrong-san"], "an address is no name");
    let lasting = |begin: i32, end: (i32, u8, u8)| {
        let mut params = params("x", &[NAME]);
        params.not_before = date_time_ymd(begin, 1, 1);
        params.not_after = date_time_ymd(end.0, end.1, end.2);
        params
    };
    assert_eq!(presented(signed(lasting(2020, (2026, 11, 1)))), ["Fail WHK-002 ended"]);
    assert_eq!(presented(signed(lasting(2027, (2030, 1, 1)))), ["Fail WHK-002 not-yet"]);
    assert_eq!(presented(signed(lasting(2020, (2026, 12, 10)))), ["Warn WHK-002 soon"]);
    for (minutes, expected) in
        [(57, "Fail WHK-002 within"), (23 * 60, "Fail WHK-002 within"), (25 * 60, "Warn WHK-002 soon")]
    {
        let mut params = params("x", &[NAME]);
        params.not_after = date_time_ymd(2026, 11, 24) + std::time::Duration::from_secs(minutes * 60);
        assert_eq!(presented(signed(params)), [expected], "it ends in {minutes} minutes");
    }
    let other = Shown { bundle: STANDARD.encode(authority("ca").pem()), ..signed(params("x", &[NAME])) };
    assert_eq!(presented(other), ["Fail WHK-003 untrusted"], "another authority of the same name");
    let other = Shown { bundle: STANDARD.encode(authority("else").pem()), ..signed(params("x", &[NAME])) };
    assert_eq!(presented(other), ["Fail WHK-003 untrusted"]);
    let mut client_only = params("x", &[NAME]);
    client_only.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    assert_eq!(presented(signed(client_only)), ["Fail WHK-003 untrusted"]);
    let pem = |text: &str| STANDARD.encode(text);
    let leaf = x509_parser::pem::parse_x509_pem(include_bytes!("testdata/sha1-leaf.pem")).unwrap().1.contents;
    let sha1 = Shown { chain: vec![STANDARD.encode(leaf)], bundle: pem(include_str!("testdata/sha1-authority.pem")) };
    let found = presented(sha1);
    assert!(found.contains(&"Fail WHK-004 signed".to_owned()), "{found:?}");
    // An authority in between that is signed with SHA-1 is refused as the leaf would be.
    let der = |text: &str| STANDARD.encode(x509_parser::pem::parse_x509_pem(text.as_bytes()).unwrap().1.contents);
    let chain =
        vec![der(include_str!("testdata/over-sha1-leaf.pem")), der(include_str!("testdata/over-sha1-middle.pem"))];
    let over_sha1 = Shown { chain, bundle: pem(include_str!("testdata/over-sha1-root.pem")) };
    assert_eq!(presented(over_sha1), ["Fail WHK-003 untrusted"]);
    let garbage = Shown { chain: vec![STANDARD.encode("garbage")], bundle: String::new() };
    assert_eq!(presented(garbage), ["Fail WHK-001 no-handshake"]);
}

#[test]
fn a_backend_without_a_handshake_fails_and_one_that_nobody_reached_is_unknown() {
    let failed = || TlsOutcome::Failed { why: "no TLS handshake within 8 s".to_owned() };
    assert_eq!(of(failed(), "", "Fail"), ["Fail WHK-001 no-handshake"]);
    assert_eq!(of(failed(), "", "Ignore"), ["Warn WHK-001 no-handshake"], "a webhook that may fail holds nothing up");
    let unseen = TlsOutcome::NotSeen { why: "pods/portforward is forbidden".to_owned() };
    assert_eq!(of(unseen, "", "Fail"), ["Unknown WHK-001 not-seen", "Unknown WHK-002 not-seen"]);
}

#[test]
fn a_backend_that_nobody_tried_is_unknown_where_its_certificate_was_asked_for() {
    let mut snapshot = Snapshot::blank("https://x", "v1.36.3", now());
    let webhook = json!({ "name": "check.shop", "clientConfig": { "service": { "namespace": "shop", "name": "hook" } }, "rules": [{}] });
    let configurations = json!([{ "metadata": { "name": "shop" }, "webhooks": [webhook] }]);
    snapshot.objects.validating = Read::Seen(serde_json::from_value(configurations).unwrap());
    let unknown = ["Unknown WHK-001 not-seen", "Unknown WHK-002 not-seen"];
    for (only, expected) in [(&[][..], &unknown[..]), (&["WHK-003"], &unknown), (&["WHK-006", "WHK-012"], &[])] {
        snapshot.asked.only = only.iter().map(|&word: &&str| word.to_owned()).collect();
        assert_eq!(words(&snapshot), expected, "{only:?}");
    }
}

#[test]
fn the_certificate_of_a_webhook_that_is_asked_about_nothing_is_no_matter() {
    let mut snapshot = Snapshot::blank("https://x", "v1.36.3", now());
    let webhook = json!({ "name": "w", "clientConfig": { "url": "https://hook.example" }, "rules": [] });
    let configurations = json!([{ "metadata": { "name": "shop" }, "webhooks": [webhook] }]);
    snapshot.objects.validating = Read::Seen(serde_json::from_value(configurations).unwrap());
    assert_eq!((words(&snapshot).len(), backends(&snapshot).len()), (0, 0));
}

#[test]
fn where_a_webhook_has_no_endpoint_its_certificate_is_not_asked_for_besides() {
    let unseen = TlsOutcome::NotSeen { why: "there is no Service shop/hook".to_owned() };
    let mut snapshot = Snapshot::blank("https://x", "v1.36.3", now());
    let client = json!({ "service": { "namespace": "shop", "name": "hook" } });
    let webhook = json!({ "name": "check.shop", "failurePolicy": "Fail", "clientConfig": client, "rules": [{}] });
    let configurations = json!([{ "metadata": { "name": "shop" }, "webhooks": [webhook] }]);
    snapshot.objects.validating = Read::Seen(serde_json::from_value(configurations).unwrap());
    let target = TlsTarget { host: NAME.to_owned(), port: 443, server_name: NAME.to_owned() };
    snapshot.dialled = vec![Dialled { target, via: "nothing".to_owned(), address: None, outcome: unseen }];
    snapshot.objects.slices = Read::Seen(Vec::new());
    assert_eq!(words(&snapshot), [""; 0], "WHK-006 says that nobody answers");
    snapshot.objects.slices = Read::NotSeen("forbidden".to_owned());
    assert_eq!(words(&snapshot), ["Unknown WHK-001 not-seen", "Unknown WHK-002 not-seen"]);
}

/// Certificates as OpenSSL writes them: of the first form, without a subject, with names of every kind, with extensions
/// that nobody knows.
const CORPUS: [&str; 9] = [
    include_str!("testdata/sha1-leaf.pem"),
    include_str!("testdata/sha1-authority.pem"),
    include_str!("testdata/corpus/small-rsa.pem"),
    include_str!("testdata/corpus/names.pem"),
    include_str!("testdata/corpus/no-subject.pem"),
    include_str!("testdata/corpus/version-1.pem"),
    include_str!("testdata/corpus/unknown-critical.pem"),
    include_str!("testdata/corpus/wildcards.pem"),
    include_str!("testdata/corpus/pss.pem"),
];

fn corpus() -> Vec<Vec<u8>> {
    let der = |text: &&str| x509_parser::pem::parse_x509_pem(text.as_bytes()).unwrap().1.contents;
    CORPUS.iter().map(der).collect()
}

#[test]
fn the_certificates_of_the_corpus_are_read_as_openssl_wrote_them() {
    let read: Vec<(usize, bool, Trust)> = CORPUS
        .iter()
        .zip(corpus())
        .map(|(text, der)| {
            let judged = judge_chain(&[STANDARD.encode(&der)], &STANDARD.encode(text), NAME, now()).unwrap();
            (judged.names.len(), judged.name_fits, judged.trust)
        })
        .collect();
    let unheard = Trust::Untrusted("it has the critical extension 1.2.3.4, which no API server knows".to_owned());
    let expected = [
        (1, true, Trust::Good),
        (0, false, Trust::Good),
        (1, true, Trust::Good),
        (3, true, Trust::Good),
        (0, false, Trust::Good),
        (0, false, Trust::Good),
        (0, false, unheard),
        (2, true, Trust::Good),
        (1, true, Trust::Good),
    ];
    assert_eq!(read, expected);
}

#[test]
fn a_chain_with_ways_without_number_is_given_up() {
    // Each of them is signed by the key of all: every one is the issuer of every other.
    let key = KeyPair::generate().unwrap();
    let mut params = params("same", &[NAME]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = rcgen::Issuer::new(params.clone(), KeyPair::try_from(key.serialize_der()).unwrap());
    let one = |serial: u64| {
        let mut params = params.clone();
        params.serial_number = Some(serial.into());
        STANDARD.encode(params.signed_by(&key, &issuer).unwrap().der())
    };
    let chain: Vec<String> = (1..40).map(one).collect();
    let bundle = STANDARD.encode(authority("else").pem());
    assert_eq!(presented(Shown { chain, bundle }), ["Unknown WHK-003 not-seen"]);
}

mod hostile {
    //! Whatever a server shows, and whatever `caBundle` holds: an answer, and no panic.

    use proptest::prelude::*;

    use super::*;

    /// A certificate of the corpus with bytes changed, taken out and put in.
    fn mangled() -> impl Strategy<Value = Vec<u8>> {
        let change = (any::<prop::sample::Index>(), any::<u8>(), 0_u8..4);
        (prop::sample::select(corpus()), proptest::collection::vec(change, 0..8)).prop_map(|(mut der, changes)| {
            for (at, byte, how) in changes {
                if der.is_empty() {
                    break;
                }
                let at = at.index(der.len());
                match how {
                    0 => der[at] = byte,
                    1 => der[at] ^= 1 << (byte % 8),
                    2 => der.insert(at, byte),
                    _ => der.truncate(at),
                }
            }
            der
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

        #[test]
        fn no_certificate_and_no_bundle_makes_the_judge_panic(
            chain in proptest::collection::vec(mangled(), 0..4),
            bundle in proptest::collection::vec(mangled(), 0..3),
            as_pem in any::<bool>(),
            name in "[a-z*.:0-9]{0,20}",
        ) {
            let text = |der: &Vec<u8>| {
                let body = STANDARD.encode(der);
                format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
            };
            let bundle = if as_pem {
                STANDARD.encode(bundle.iter().map(text).collect::<String>())
            } else {
                STANDARD.encode(bundle.concat())
            };
            let chain: Vec<String> = chain.iter().map(|der| STANDARD.encode(der)).collect();
            if let Ok(judged) = judge_chain(&chain, &bundle, &name, now()) {
                prop_assert!(!chain.is_empty());
                prop_assert!(!judged.name_fits || !judged.names.is_empty());
            }
        }
    }
}

#[test]
fn conversion_webhooks_and_aggregated_apis_are_judged_alike() {
    let shown = signed(params(NAME, &["other"]));
    let service = json!({ "namespace": "shop", "name": "hook", "port": 8443 });
    let mut snapshot = Snapshot::blank("https://x", "v1.36.3", now());
    let client = json!({ "service": service, "caBundle": shown.bundle });
    let conversion = json!({ "strategy": "Webhook", "webhook": { "clientConfig": client } });
    snapshot.objects.definitions = Read::Seen(
        serde_json::from_value(json!([{ "metadata": { "name": "carts.shop" }, "spec": { "group": "shop", "names": { "plural": "carts" }, "conversion": conversion } }]))
            .unwrap(),
    );
    let spec = |skip: bool| json!({ "service": service, "caBundle": shown.bundle, "insecureSkipTLSVerify": skip });
    snapshot.objects.api_services = Read::Seen(
        serde_json::from_value(json!([
            { "metadata": { "name": "v1.shop" }, "spec": spec(false) },
            { "metadata": { "name": "v2.shop" }, "spec": spec(true) },
            { "metadata": { "name": "v1.apps" }, "spec": {} },
        ]))
        .unwrap(),
    );
    let target = TlsTarget { host: NAME.to_owned(), port: 8443, server_name: NAME.to_owned() };
    assert_eq!(backends(&snapshot), std::slice::from_ref(&target), "one backend is dialled once");
    let outcome = TlsOutcome::Presented { chain: shown.chain };
    snapshot.dialled = vec![Dialled { target, via: "agent on m1".to_owned(), address: None, outcome }];
    assert_eq!(words(&snapshot), ["Fail WHK-013 wrong-san", "Fail WHK-012 wrong-san"]);
    // API servers say that there is nothing to convert.
    let mut metrics = crate::api::metrics::Metrics::default();
    metrics.take("apiserver_resource_objects{group=\"shop\",resource=\"carts\"} 0");
    snapshot.metrics = vec![crate::snapshot::Instance {
        address: "x".to_owned(),
        metrics: Read::Seen(metrics),
        version: Read::NotAsked,
        not_ready: Read::NotAsked,
    }];
    assert_eq!(words(&snapshot), ["Warn WHK-013 wrong-san", "Fail WHK-012 wrong-san"]);
}

#[test]
fn an_address_is_matched_by_ip_names_alone_and_the_way_out_asks_for_one() {
    for (host, name, other) in [
        ("10.104.0.1", "10.104.0.1", "10.104.0.2"),
        ("[fd00::1]", "fd00::1", "fd00::2"),
        ("[fd00:0::1]", "fd00:0::1", "::"),
    ] {
        let said = |names: Vec<rcgen::SanType>| {
            let mut params = params("x", &[]);
            params.subject_alt_names = names;
            let shown = signed(params);
            let mut snapshot = Snapshot::blank("https://x", "v1.36.3", now());
            let client = json!({ "url": format!("https://{host}:8443/check"), "caBundle": shown.bundle });
            let webhook = json!({ "name": "check.shop", "clientConfig": client, "rules": [{}] });
            let configurations = json!([{ "metadata": { "name": "shop" }, "webhooks": [webhook] }]);
            snapshot.objects.validating = Read::Seen(serde_json::from_value(configurations).unwrap());
            let [target] = &backends(&snapshot)[..] else { panic!() };
            let outcome = TlsOutcome::Presented { chain: shown.chain };
            let dialled = Dialled { target: target.clone(), via: "directly".to_owned(), address: None, outcome };
            snapshot.dialled = vec![dialled];
            let said = words(&snapshot);
            (said, judge(&snapshot, &question()))
        };
        let dns = |name: &str| rcgen::SanType::DnsName(name.try_into().unwrap());
        let address = |name: &str| rcgen::SanType::IpAddress(name.parse().unwrap());
        assert_eq!(said(vec![address(name)]).0, [""; 0]);
        for names in [vec![dns(name)], vec![dns(host)], vec![dns(name), address(other)]] {
            let (sentences, findings) = said(names);
            assert_eq!(sentences, ["Fail WHK-001 dns-san"], "{host}");
            let fix = findings[0].fix(Language::En);
            assert!(fix.contains(&format!("subjectAltName=IP:{name},")), "{fix}");
        }
        let (sentences, findings) = said(vec![address(other), dns("hook")]);
        assert_eq!(sentences, ["Fail WHK-001 wrong-san"], "{host}");
        assert!(findings[0].fix(Language::Zh).contains(&format!("subjectAltName=IP:{name} ")));
        assert_eq!(said(Vec::new()).0, ["Fail WHK-001 no-san"], "{host}");
    }
}

#[test]
fn the_certificate_of_a_conversion_webhook_that_ends_within_hours_is_told() {
    let mut params = params("x", &[NAME]);
    params.not_after = date_time_ymd(2026, 11, 24) + std::time::Duration::from_secs(3600);
    let shown = signed(params);
    let mut snapshot = Snapshot::blank("https://x", "v1.36.3", now());
    let client = json!({ "service": { "namespace": "shop", "name": "hook" }, "caBundle": shown.bundle });
    let conversion = json!({ "strategy": "Webhook", "webhook": { "clientConfig": client } });
    let spec = json!({ "group": "shop", "names": { "plural": "carts" }, "conversion": conversion });
    let definitions = json!([{ "metadata": { "name": "carts.shop" }, "spec": spec }]);
    snapshot.objects.definitions = Read::Seen(serde_json::from_value(definitions).unwrap());
    let target = TlsTarget { host: NAME.to_owned(), port: 443, server_name: NAME.to_owned() };
    let outcome = TlsOutcome::Presented { chain: shown.chain };
    snapshot.dialled = vec![Dialled { target, via: "agent on m1".to_owned(), address: None, outcome }];
    assert_eq!(words(&snapshot), ["Fail WHK-013 within"]);
    let [finding] = &judge(&snapshot, &question())[..] else { panic!() };
    let text = finding.text(Language::En);
    assert!(text.contains("ends in 1 hour,"), "{text}");
}

#[test]
fn addresses_are_read_as_an_api_server_reads_them() {
    for (url, expected) in [
        ("https://hook.example/path", Some(("hook.example", 443))),
        ("https://hook.example:8443", Some(("hook.example", 8443))),
        ("https://[fd00::1]:9443/x?y", Some(("fd00::1", 9443))),
        ("https://[fd00::1]/x", Some(("fd00::1", 443))),
        ("http://hook.example", None),
        ("https://", None),
        ("https://hook:port", None),
    ] {
        let found = of_url(url).map(|target| (target.host, target.port));
        assert_eq!(found, expected.map(|(host, port): (&str, u16)| (host.to_owned(), port)), "{url}");
    }
}
