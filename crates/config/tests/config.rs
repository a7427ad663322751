//! The format: what is taken, what is refused, and in which words.

use std::net::SocketAddr;

use electrode_config::{Config, ConfigError, Endpoint, MAX_FILE_BYTES};
use proptest::prelude::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "config.txt")
}

fn refused(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn the_example_at_the_root_is_a_group_of_three_on_this_machine() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config.txt");
    let config = Config::load(root).unwrap();
    assert_eq!((config.f, config.replicas.len()), (1, 3));
    assert_eq!(config.warnings, Vec::<String>::new());
    assert!(
        config
            .resolve()
            .unwrap()
            .iter()
            .all(|address| address.ip().is_loopback())
    );
}

#[test]
fn comments_blank_lines_tabs_and_a_last_line_without_newline_are_fine() {
    let config = parse(
        "# a group\n\n\tf\t1 # one\r\n  replica alpha:1#no blank needed\nreplica 10.0.0.2:65535\n\n\
         replica [2001:db8::3]:51510",
    );
    let endpoint = |host: &str, port| Endpoint {
        host: host.to_owned(),
        port,
    };
    assert_eq!(
        config.unwrap().replicas,
        [
            endpoint("alpha", 1),
            endpoint("10.0.0.2", 65535),
            endpoint("2001:db8::3", 51510)
        ]
    );
}

#[test]
fn a_single_replica_is_allowed_with_a_warning() {
    let config = parse("f 0\nreplica a:1\n").unwrap();
    assert_eq!(
        config.warnings,
        ["config.txt:1:3: f is 0: the group survives no failure"]
    );
}

#[test]
fn a_wrong_count_of_replicas_is_refused_where_it_goes_wrong() {
    assert_eq!(
        refused("f 1\nreplica a:1\nreplica b:1\n"),
        "config.txt:3:12: expected 3 replicas (2f+1 with f = 1), found 2"
    );
    assert_eq!(
        refused("f 0\nreplica a:1\n  replica b:1\n"),
        "config.txt:3:11: expected 1 replicas (2f+1 with f = 0), found 2"
    );
    assert_eq!(
        refused(""),
        "config.txt:1:1: expected an `f` line, found the end of the file"
    );
    assert_eq!(
        refused("f 7\n"),
        "config.txt:1:4: expected 15 replicas (2f+1 with f = 7), found 0"
    );
}

#[test]
fn errors_name_the_place_and_what_was_expected() {
    let cases = [
        (
            "f one\n",
            "config.txt:1:3: expected a number from 0 to 7, found `one`",
        ),
        (
            "f 8\n",
            "config.txt:1:3: expected a number from 0 to 7, found `8`",
        ),
        (
            "f -1\n",
            "config.txt:1:3: expected a number from 0 to 7, found `-1`",
        ),
        (
            "f +1\n",
            "config.txt:1:3: expected a number from 0 to 7, found `+1`",
        ),
        (
            "f\n",
            "config.txt:1:2: expected a number, the failures to survive, found the end of the line",
        ),
        (
            "f # 1\n",
            "config.txt:1:2: expected a number, the failures to survive, found the end of the line",
        ),
        (
            "f 1 2\n",
            "config.txt:1:5: expected the end of the line, found `2`",
        ),
        (
            "f 1\nf 1\n",
            "config.txt:2:1: expected one `f` line only (the first is line 1), found `f`",
        ),
        (
            "F 1\n",
            "config.txt:1:1: expected `f` or `replica`, found `F`",
        ),
        (
            "é 1\n",
            "config.txt:1:1: expected `f` or `replica`, found `é`",
        ),
        (
            "replica\n",
            "config.txt:1:8: expected host:port, found the end of the line",
        ),
        (
            "replica é:1\n",
            "config.txt:1:9: expected a host name or an IPv4 address, found `é:1`",
        ),
        (
            "replica alpha\n",
            "config.txt:1:14: expected `:` and a port after the host, found the end of the line",
        ),
        (
            "replica :1\n",
            "config.txt:1:9: expected a host name or an IPv4 address, found `:1`",
        ),
        (
            "replica a..b:1\n",
            "config.txt:1:9: expected a host name or an IPv4 address, found `a..b:1`",
        ),
        (
            "replica 10.0.0.300:1\n",
            "config.txt:1:9: expected a host name or an IPv4 address, found `10.0.0.300:1`",
        ),
        (
            "replica a/b:1\n",
            "config.txt:1:10: expected a host name or an IPv4 address, found `/b:1`",
        ),
        (
            "replica a:0\n",
            "config.txt:1:11: expected a port from 1 to 65535, found `0`",
        ),
        (
            "replica a:65536\n",
            "config.txt:1:11: expected a port from 1 to 65535, found `65536`",
        ),
        (
            "replica a:+1\n",
            "config.txt:1:11: expected a port from 1 to 65535, found `+1`",
        ),
        (
            "replica a:\n",
            "config.txt:1:11: expected a port from 1 to 65535, found the end of the line",
        ),
        (
            "replica ::1:5\n",
            "config.txt:1:9: expected an IPv6 address in brackets, as in [::1]:51510, found `::1:5`",
        ),
        (
            "replica [::1\n",
            "config.txt:1:13: expected `]` after the IPv6 address, found the end of the line",
        ),
        (
            "replica [::x]:1\n",
            "config.txt:1:10: expected an IPv6 address between the brackets, found `::x]:1`",
        ),
        (
            "replica [::1]\n",
            "config.txt:1:14: expected `:` and a port after the address, found the end of the line",
        ),
        (
            "replica a:1 b:1\n",
            "config.txt:1:13: expected the end of the line, found `b:1`",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refused(text), expected, "{text:?}");
    }
}

#[test]
fn one_replica_in_two_spellings_is_a_duplicate() {
    for (first, second) in [
        ("a:1", "a:1"),
        ("Alpha:1", "alpha:1"),
        ("[::1]:9", "[0:0:0:0:0:0:0:1]:9"),
        ("10.0.0.1:9", "10.0.0.1:9"),
    ] {
        assert_eq!(
            refused(&format!(
                "f 1\nreplica {first}\nreplica {second}\nreplica z:1\n"
            )),
            format!(
                "config.txt:3:9: expected a replica other than the one of line 2, found `{second}`"
            )
        );
    }
    assert!(parse("f 1\nreplica a:1\nreplica a:2\nreplica b:1\n").is_ok());
}

#[test]
fn no_more_than_fifteen_replicas_are_read() {
    let lines: String = (0..16)
        .map(|index| format!("replica h{index}:1\n"))
        .collect();
    assert_eq!(
        refused(&lines),
        "config.txt:16:9: expected at most 15 replicas, found `one more`"
    );
}

#[test]
fn a_file_that_is_missing_too_long_or_not_text_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.txt");
    let load = || Config::load(&path).unwrap_err().to_string();
    let name = path.display();
    assert!(
        load().starts_with(&format!("{name}: can't be read: ")),
        "{}",
        load()
    );
    std::fs::write(&path, b"f 1\n# \xc3\xa9 \xff\n").unwrap();
    assert_eq!(
        load(),
        format!("{name}:2:5: expected UTF-8 text, found the byte 0xff")
    );
    std::fs::write(&path, vec![b'#'; MAX_FILE_BYTES + 1]).unwrap();
    assert_eq!(
        load(),
        format!("{name}: longer than 65536 bytes, which no configuration is")
    );
}

#[test]
fn addresses_resolve_to_themselves_and_in_order() {
    let config =
        parse("f 1\nreplica 10.0.0.3:1\nreplica 10.0.0.1:2\nreplica 10.0.0.2:3\n").unwrap();
    let expected: Vec<SocketAddr> = ["10.0.0.3:1", "10.0.0.1:2", "10.0.0.2:3"]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    assert_eq!(config.resolve(), Ok(expected));
}

#[test]
fn a_name_nobody_knows_is_reported_with_its_line() {
    let config =
        parse("f 1\nreplica 10.0.0.3:1\n\nreplica no-such-host.invalid:2\nreplica 10.0.0.2:3\n");
    let error = config.unwrap().resolve().unwrap_err().to_string();
    assert!(
        error.starts_with("config.txt:4: can't resolve `no-such-host.invalid:2`: "),
        "{error}"
    );
}

#[test]
fn families_may_not_be_mixed() {
    let config = parse("f 1\nreplica 10.0.0.3:1\nreplica [::1]:2\nreplica 10.0.0.2:3\n").unwrap();
    assert_eq!(
        config.resolve().unwrap_err().to_string(),
        "config.txt:2: `10.0.0.3:1` has no IPv6 address, but another replica has nothing else"
    );
}

proptest! {
    #[test]
    fn displaying_and_parsing_gives_the_same_group(
        f in 0..=7usize,
        hosts in proptest::collection::hash_set("[a-z][a-z0-9-]{0,9}(\\.[a-z]{2,3})?|[0-9a-f]{1,4}::[1-9]", 15),
        port in 1..=u16::MAX,
    ) {
        let lines: String = hosts
            .into_iter()
            .take(2 * f + 1)
            .map(|host| format!("replica {}\n", Endpoint { host, port }))
            .collect();
        let Ok(config) = parse(&format!("f {f}\n{lines}")) else {
            // Two spellings of one address (leading zeros) are refused, rightly.
            return Ok(());
        };
        let again = parse(&config.to_string()).unwrap();
        prop_assert_eq!((again.f, again.replicas), (config.f, config.replicas));
    }

    #[test]
    fn no_text_makes_it_panic(text in "[f 0-9\n#:.é\\[\\]a-]{0,60}|(replica |f |\n|.){0,20}") {
        if let Err(error) = parse(&text) {
            prop_assert!(error.to_string().starts_with("config.txt:"));
        }
    }
}
