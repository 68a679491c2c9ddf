//! Which addresses may be called: a table of both sides of every range's edge, and any spelling of a private address.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tidegate_egress::{AddressGuard, Egress, EgressError, EgressSettings};

mod support;

fn verdict(guard: &AddressGuard, address: &str) -> &'static str {
    match guard.check(address.parse().expect(address)) {
        Ok(()) => "public",
        Err(denied) => denied.rule.name,
    }
}

#[test]
fn table_of_addresses() {
    let guard = AddressGuard::new(Vec::new(), false);
    let table = [
        ("0.0.0.0", "this network"),
        ("0.255.255.255", "this network"),
        ("1.0.0.0", "public"),
        ("8.8.8.8", "public"),
        ("9.255.255.255", "public"),
        ("10.0.0.0", "private"),
        ("10.255.255.255", "private"),
        ("11.0.0.0", "public"),
        ("100.63.255.255", "public"),
        ("100.64.0.0", "shared address space"),
        ("100.100.100.200", "shared address space"),
        ("100.127.255.255", "shared address space"),
        ("100.128.0.0", "public"),
        ("126.255.255.255", "public"),
        ("127.0.0.0", "loopback"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.255", "loopback"),
        ("128.0.0.0", "public"),
        ("168.63.129.15", "public"),
        ("168.63.129.16", "Azure's host"),
        ("168.63.129.17", "public"),
        ("169.253.255.255", "public"),
        ("169.254.0.0", "link-local"),
        ("169.254.169.254", "link-local"),
        ("169.254.170.2", "link-local"),
        ("169.254.255.255", "link-local"),
        ("169.255.0.0", "public"),
        ("172.15.255.255", "public"),
        ("172.16.0.0", "private"),
        ("172.31.255.255", "private"),
        ("172.32.0.0", "public"),
        ("191.255.255.255", "public"),
        ("192.0.0.0", "protocol assignments"),
        ("192.0.0.192", "protocol assignments"),
        ("192.0.0.255", "protocol assignments"),
        ("192.0.1.0", "public"),
        ("192.0.2.0", "documentation"),
        ("192.0.2.255", "documentation"),
        ("192.0.3.0", "public"),
        ("192.88.98.255", "public"),
        ("192.88.99.1", "6to4 relay"),
        ("192.88.100.0", "public"),
        ("192.167.255.255", "public"),
        ("192.168.0.0", "private"),
        ("192.168.255.255", "private"),
        ("192.169.0.0", "public"),
        ("198.17.255.255", "public"),
        ("198.18.0.0", "benchmarking"),
        ("198.19.255.255", "benchmarking"),
        ("198.20.0.0", "public"),
        ("198.51.99.255", "public"),
        ("198.51.100.0", "documentation"),
        ("198.51.101.0", "public"),
        ("203.0.112.255", "public"),
        ("203.0.113.255", "documentation"),
        ("203.0.114.0", "public"),
        ("223.255.255.255", "public"),
        ("224.0.0.0", "multicast"),
        ("239.255.255.255", "multicast"),
        ("240.0.0.0", "reserved"),
        ("255.255.255.254", "reserved"),
        ("255.255.255.255", "broadcast"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::2", "IPv4-compatible"),
        ("::127.0.0.1", "IPv4-compatible"),
        ("::8.8.8.8", "IPv4-compatible"),
        ("::1:0:0", "not global unicast"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:10.1.2.3", "private"),
        ("::ffff:169.254.169.254", "link-local"),
        ("::ffff:8.8.8.8", "public"),
        ("::ffff:0:8.8.8.8", "not global unicast"),
        ("64:ff9b::", "NAT64"),
        ("64:ff9b::8.8.8.8", "NAT64"),
        ("64:ff9b::127.0.0.1", "NAT64"),
        ("64:ff9b:1::", "NAT64"),
        ("64:ff9b:1:ffff::7f00:1", "NAT64"),
        ("64:ff9b:2::", "not global unicast"),
        ("100::", "discard"),
        ("100:0:0:1::", "not global unicast"),
        ("1fff:ffff::", "not global unicast"),
        ("2000::", "public"),
        ("2001::", "Teredo"),
        ("2001:0:ffff::1", "Teredo"),
        ("2001:2::1", "benchmarking"),
        ("2001:10::1", "protocol assignments"),
        ("2001:20::1", "protocol assignments"),
        ("2001:1ff:ffff::", "protocol assignments"),
        ("2001:200::", "public"),
        ("2001:4860:4860::8888", "public"),
        ("2001:db7:ffff::", "public"),
        ("2001:db8::", "documentation"),
        ("2001:db8:ffff::", "documentation"),
        ("2001:db9::", "public"),
        ("2002::", "6to4"),
        ("2002:7f00:1::", "6to4"),
        ("2002:808:808::", "6to4"),
        ("2003::", "public"),
        ("2606:4700::1111", "public"),
        ("3ffe:ffff::", "public"),
        ("3fff::", "documentation"),
        ("3fff:fff:ffff::", "documentation"),
        ("3fff:1000::", "public"),
        ("4000::", "not global unicast"),
        ("5f00::1", "segment routing"),
        ("fbff::", "not global unicast"),
        ("fc00::", "unique local"),
        ("fd00:ec2::254", "unique local"),
        ("fdff:ffff::", "unique local"),
        ("fe00::", "not global unicast"),
        ("fe80::1", "link-local"),
        ("febf:ffff::", "link-local"),
        ("fec0::", "site-local"),
        ("feff::", "site-local"),
        ("ff00::", "multicast"),
        ("ff02::1", "multicast"),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "multicast"),
    ];
    for (address, expected) in table {
        assert_eq!(verdict(&guard, address), expected, "{address}");
    }
}

#[test]
fn allow_opens_what_it_names_and_no_more() {
    let guard = |ranges: &[&str], never| AddressGuard::new(ranges.iter().map(|r| r.parse().unwrap()).collect(), never);

    let loopback = guard(&["127.0.0.1/32"], false);
    assert_eq!(verdict(&loopback, "127.0.0.1"), "public");
    assert_eq!(verdict(&loopback, "::ffff:127.0.0.1"), "public", "the same address");
    assert_eq!(verdict(&loopback, "127.0.0.2"), "loopback");
    for other in ["::1", "::127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::"] {
        assert_ne!(verdict(&loopback, other), "public", "{other}");
    }
    assert_eq!(verdict(&guard(&["10.0.0.0/8", "fc00::/7"], false), "fd00::1"), "public");
    assert_eq!(verdict(&guard(&["0.0.0.0/0"], false), "::1"), "loopback", "IPv4 says nothing of IPv6");

    let all = ["0.0.0.0/0", "::/0"];
    for address in ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "10.0.0.1", "64:ff9b::7f00:1", "255.255.255.255"]
    {
        assert_eq!(verdict(&guard(&all, false), address), "public", "{address}");
    }
    let on_aws = guard(&all, true);
    let closed = [
        "0.0.0.0",
        "127.0.0.1",
        "127.8.9.10",
        "169.254.169.254",
        "169.254.170.2",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::169.254.169.254",
        "2002:a9fe:a9fe::",
        "2001:0:0:0:0:0:5601:5601",
        "fe80::1",
        "fd00:ec2::254",
    ];
    for address in closed {
        let denied = on_aws.check(address.parse().unwrap()).unwrap_err();
        assert!(!denied.openable && !denied.to_string().contains("egress-allow"), "{address}: {denied}");
    }
    for address in ["10.0.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "64:ff9b::10.0.0.1", "2002:a00:1::"] {
        assert_eq!(verdict(&on_aws, address), "public", "{address}");
    }
}

#[test]
fn a_refusal_names_rule_range_and_remedy() {
    let denied = AddressGuard::new(Vec::new(), false).check(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap_err();
    assert_eq!(
        denied.to_string(),
        "its address is not public (loopback, 127.0.0.0/8); the operator can open it with `--egress-allow` or \
         TIDEGATE_EGRESS_ALLOW"
    );
}

/// An address out of a range that is not public.
fn not_public() -> impl Strategy<Value = Ipv4Addr> {
    let ranges = [
        ("0.0.0.0", 8),
        ("10.0.0.0", 8),
        ("100.64.0.0", 10),
        ("127.0.0.0", 8),
        ("169.254.0.0", 16),
        ("172.16.0.0", 12),
        ("192.0.0.0", 24),
        ("192.168.0.0", 16),
        ("198.18.0.0", 15),
        ("224.0.0.0", 3),
    ];
    (prop::sample::select(ranges.to_vec()), any::<u32>()).prop_map(|((base, bits), random)| {
        let base: Ipv4Addr = base.parse().unwrap();
        Ipv4Addr::from(u32::from(base) | (random & (u32::MAX >> bits)))
    })
}

/// One of the ways to write a number that the URL standard knows, zeros in front included.
fn number(value: u32, style: u8) -> String {
    match style % 6 {
        0 => value.to_string(),
        1 => format!("0{value:o}"),
        2 => format!("0x{value:x}"),
        3 => format!("0X{value:X}"),
        4 => format!("0000{value:o}"),
        _ => format!("0x000{value:x}"),
    }
}

/// One of the ways to write a host that the URL standard takes for the address.
fn spelling() -> impl Strategy<Value = (Ipv4Addr, String)> {
    (not_public(), 0..9_u8, any::<[u8; 4]>(), any::<bool>()).prop_map(|(address, form, styles, dot)| {
        let [a, b, c, d] = address.octets().map(u32::from);
        let parts = match form {
            0 => vec![a, b, c, d],
            1 => vec![a, b, (c << 8) | d],
            2 => vec![a, (b << 16) | (c << 8) | d],
            _ => vec![u32::from(address)],
        };
        let written: Vec<String> = parts.iter().zip(styles).map(|(part, style)| number(*part, style)).collect();
        let mut host = written.join(".");
        if dot {
            host.push('.');
        }
        let host = match form {
            4 => host.bytes().map(|byte| format!("%{byte:02X}")).collect(),
            // Full-width digits and the ideographic full stop.
            5 => address.to_string().chars().map(|c| if c == '.' { '。' } else { wide(c) }).collect(),
            6 => format!("[::ffff:{address}]"),
            7 => format!("[0:0:0:0:0:FFFF:{:x}:{:x}]", (a << 8) | b, (c << 8) | d),
            8 => format!("[64:ff9b::{address}]"),
            _ => host,
        };
        (address, host)
    })
}

fn wide(c: char) -> char {
    char::from_u32(u32::from(c) - u32::from('0') + u32::from('０')).unwrap()
}

#[test]
fn no_spelling_of_a_private_address_gets_out() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let vault = support::Vault::new();
    let egress = Egress::with_resolver(EgressSettings::default(), vault.envelope, Arc::new(support::NoResolver));
    let config = Config { failure_persistence: None, cases: 4000, ..Config::default() };
    let cases = (spelling(), prop::option::of(1_u16..));
    let held = TestRunner::new(config).run(&cases, |((address, host), port)| {
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        for url in [format!("http://{host}{port}/x"), format!("HTTPS:\\\\{host}{port}?q")] {
            let refused = runtime.block_on(egress.send(support::get(&url), None));
            prop_assert!(matches!(refused, Err(EgressError::DeniedAddress { .. })), "{address} as {url}: {refused:?}");
        }
        Ok(())
    });
    held.unwrap();
}
