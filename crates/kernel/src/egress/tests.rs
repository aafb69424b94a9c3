#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn egress(entries: &[&str]) -> Vec<Allowed> {
    entries.iter().map(|entry| entry.parse().unwrap()).collect()
}

fn may(entries: &[&str], url: &str) -> bool {
    let target = Target::parse(url).unwrap();
    named(&egress(entries), &target.host, target.port).is_ok()
}

#[test]
fn a_url_with_more_than_one_meaning_is_refused() {
    for url in [
        "https://user@example.org/",
        "https://user:pass@example.org/",
        "https://example.org\\@evil.org/",
        "https://example.org/a\r\nX: 1",
        "https://2130706433/",
        "https://0177.0.0.1/",
        "https://0x7f.0.0.1/",
        "https://0x7f000001/",
        "https://127.1/",
        "https://127.0.0.1./",
        "https://127.0.0.01/",
        "https://1.2.3.4.5/",
        "https://[127.0.0.1]/",
        "https://[::1",
        "https://[fe80::1%25eth0]/",
        "https://exa%6dple.org/",
        "https://exämple.org/",
        "https:///path",
        "https://example.org:0/",
        "https://example.org:/",
        "https://example.org:99999/",
        "https://example.org:+80/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "//example.org/",
        "example.org/",
    ] {
        assert!(Target::parse(url).is_err(), "{url} is {:?}", Target::parse(url));
    }
}

#[test]
fn a_url_is_read_in_its_parts() {
    let read = |url: &str| Target::parse(url).map(|target| (target.shown(), target.path)).unwrap();
    assert_eq!(read("https://Example.ORG./a b?q=ü#f"), ("https://example.org".to_owned(), "/a%20b?q=%C3%BC".to_owned()));
    assert_eq!(read("http://127.0.0.1:8080?x"), ("http://127.0.0.1:8080".to_owned(), "/?x".to_owned()));
    assert_eq!(read("HTTPS://[::1]:443/"), ("https://[::1]".to_owned(), "/".to_owned()));
    let base = Target::parse("https://example.org/a/b?c").unwrap();
    for (location, expected) in [
        ("/x", "https://example.org/x"),
        ("x", "https://example.org/a/x"),
        ("?y", "https://example.org/a/b?y"),
        ("//evil.org/x", "https://evil.org/x"),
        ("http://evil.org/x", "http://evil.org/x"),
        ("/x?u=https://other.org/", "https://example.org/x?u=https://other.org/"),
    ] {
        assert_eq!(base.join(location), Target::parse(expected), "{location}");
    }
    assert!(base.join("ftp://evil.org").is_err());
    assert!(!base.same_origin(&base.join("http://example.org/").unwrap()));
    assert!(base.same_origin(&base.join("/z").unwrap()));
}

#[test]
fn only_what_is_named_is_reached_on_its_ports() {
    assert!(may(&["api.example.org"], "https://api.example.org/x") && may(&["api.example.org"], "http://API.example.org"));
    assert!(!may(&["api.example.org"], "https://api.example.org:8443/"));
    assert!(may(&["api.example.org:8443"], "https://api.example.org:8443/") && !may(&["api.example.org:8443"], "https://api.example.org/"));
    assert!(!may(&["example.org"], "https://api.example.org/") && !may(&[], "https://example.org/"));
    assert!(may(&["*.example.org"], "https://a.b.example.org/"));
    assert!(!may(&["*.example.org"], "https://example.org/") && !may(&["*.example.org"], "https://evilexample.org/"));
    assert!(may(&["*"], "https://anything.example/") && may(&["*"], "https://93.184.215.14/"));
    assert!(!may(&["*"], "http://127.0.0.1/") && !may(&["*"], "http://169.254.169.254/") && !may(&["*"], "http://[::ffff:10.0.0.1]/"));
    assert!(may(&["127.0.0.1:8080"], "http://127.0.0.1:8080/") && !may(&["127.0.0.1:8080"], "http://127.0.0.1/"));
    assert!(may(&["10.0.0.0/8"], "http://10.1.2.3/") && !may(&["10.0.0.0/8"], "http://11.0.0.1/") && may(&["10.0.0.0/8:81"], "http://10.1.2.3:81/"));
    assert!(may(&["[fd00::]/8"], "http://[fd12::1]/") && !may(&["[fd00::]/8"], "http://[fe12::1]/"));
}

#[test]
fn a_name_leads_to_public_addresses_only_unless_the_address_is_named() {
    let host = Host::Name("example.org".to_owned());
    let leads = |entries: &[&str], address: &str, port: u16| reachable(&egress(entries), &host, address.parse().unwrap(), port).is_ok();
    for address in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "2001::1",
        "2001:db8::1",
        "3fff::1",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "100::1",
        "4000::1",
    ] {
        assert!(!leads(&["example.org", "*"], address, 443), "{address} is public");
    }
    for address in
        ["8.8.8.8", "100.128.0.1", "172.32.0.1", "198.20.0.1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2606:4700::1111", "2a00:1450::1", "2001:4860::1"]
    {
        assert!(leads(&["example.org"], address, 443), "{address} is not public");
    }
    assert!(leads(&["10.0.0.0/8"], "10.1.2.3", 5432) && leads(&["10.0.0.0/8"], "::ffff:10.1.2.3", 443));
    assert!(leads(&["127.0.0.1:8080"], "127.0.0.1", 8080) && !leads(&["127.0.0.1:8080"], "127.0.0.1", 8081));
}

#[test]
fn what_is_no_entry_is_refused_with_what_to_write() {
    for entry in ["https://example.org", "", "example.org/8", "10.0.0.0/33", "10.0.0.0/x", "a b", "*.", "*x", "example.org:http", "127.1", "10.0.0.0:80/8"] {
        let error = entry.parse::<Allowed>().unwrap_err();
        assert!(error.hint.contains("write "), "{entry}");
    }
    for entry in ["api.example.org", "*", "*.example.org:8443", "127.0.0.1:8080", "10.0.0.0/8", "10.0.0.0/8:81", "[fd00::]/8", "[::1]:80"] {
        assert_eq!(entry.parse::<Allowed>().unwrap().to_string(), entry);
    }
}

proptest! {
    #[test]
    fn no_url_panics_and_a_read_one_reads_the_same_again(url in "(https?://)?[a-z0-9.:@/\\[\\]\\\\%?# -]{0,40}", location in "\\PC{0,20}") {
        if let Ok(target) = Target::parse(&url) {
            let again = Target::parse(&format!("{}{}", target.shown(), target.path)).unwrap();
            prop_assert_eq!(&again, &target);
            let _ = target.join(&location);
        }
        let _ = url.parse::<Allowed>();
    }
}
