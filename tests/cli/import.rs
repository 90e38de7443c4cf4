//! `portcullis import`.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::program::{code, edits, file, folder, program, run_at, stderr, stdout};
use crate::scripted::{Reply, Service, error, reply};

/// The answers to groups of this many commands, one after the other.
fn taken(groups: &[usize]) -> Vec<Reply> {
    let mut end = 0;
    let answer = |count: &usize| {
        end += count;
        reply(201, &json!({"offset": end - 1, "count": count}).to_string())
    };
    groups.iter().map(answer).collect()
}

#[test]
fn an_import_goes_in_groups_with_keys_of_one_name() {
    let folder = folder();
    let lines: String = (0..2001_u32).map(|n| format!("{}\n", std::net::Ipv4Addr::from(n))).collect();
    let service = Service::tcp(taken(&[1000, 1000, 1]));
    let output = run_at(&service, &["import", &file(&folder, lines), "--reason", "a list", "--by", "alice"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(stdout(&output), "imported 2001 ranges (0 lines skipped) in 3 groups; position 2001\n");
    assert_eq!(stderr(&output), "", "the rate is for terminals");
    let asked = service.asked();
    assert_eq!(asked.iter().map(|asked| asked.lines().len()).collect::<Vec<_>>(), [1000, 1000, 1]);
    let lines: Vec<&str> = asked.iter().map(|asked| asked.line.as_str()).collect();
    let expected = ["POST /v1/commands", "POST /v1/commands", "POST /v1/commands?wait=applied"];
    assert_eq!(lines, expected, "what is imported is seen by the next question");
    let keys: Vec<(&str, &str)> =
        asked.iter().filter_map(|asked| asked.header("idempotency-key")?.split_once('.')).collect();
    assert_eq!(keys.iter().map(|(_, group)| *group).collect::<Vec<_>>(), ["1", "2", "3"]);
    assert!(keys.iter().all(|(name, _)| *name == keys[0].0), "{keys:?}");
    let last = &edits(&asked[2])[0];
    assert_eq!(
        (last.range.to_string(), last.reason.as_deref(), last.by.as_deref()),
        ("0.0.7.208".to_owned(), Some("a list"), Some("alice"))
    );
}

#[test]
fn a_list_is_taken_whole_or_not_at_all() {
    let folder = folder();
    let list = file(&folder, "1.2.3.4\nnonsense\n1.2.3.5\n\n1.2.3.6/24\n");
    let service = Service::tcp(taken(&[2]));
    let output = run_at(&service, &["import", &list]);
    assert_eq!((code(&output), service.asked().len()), (2, 0));
    assert!(
        stderr(&output).contains(&format!("{list}:2: `nonsense` is not an address")),
        "{}",
        stderr(&output)
    );
    assert!(
        stderr(&output)
            .contains(&format!("{list}:5: 1.2.3.6/24 has host bits set; did you mean 1.2.3.0/24?"))
    );
    let output = run_at(&service, &["import", &list, "--skip-invalid", "--json"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let expected = json!({"ranges": 2, "lines_skipped": 2, "groups": 1, "position": 2, "rows_changed": null, "addresses_changed": null, "refused": 0});
    assert_eq!(serde_json::from_str::<Value>(stdout(&output)).expect("JSON"), expected);
    assert!(stderr(&output).contains(&format!("{list}:2: ")));

    let many = file(&folder, "x\n".repeat(12));
    let output = run_at(&service, &["import", &many, "--skip-invalid"]);
    assert_eq!(code(&output), 2, "there is nothing else in it");
    assert!(
        stderr(&output).contains(&format!("{many}:10: ")) && stderr(&output).contains("and 2 more lines")
    );
    assert!(!stderr(&output).contains(&format!("{many}:11: ")));
    for empty in [&b""[..], b"\xef\xbb\xbf# a comment\r\n"] {
        let output = run_at(&service, &["import", &file(&folder, empty)]);
        assert_eq!(code(&output), 2);
        assert!(stderr(&output).contains("there is no range in it"));
    }
    let output = run_at(&service, &["import", &file(&folder, b"1.2.3.4\n1.2.\xff\n")]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains(":2: it is not UTF-8"), "{}", stderr(&output));
    assert_eq!(service.asked().len(), 1);
}

#[test]
fn a_wide_range_is_named_before_anything_is_sent() {
    let folder = folder();
    let list = file(&folder, "10.0.0.0/8\n1.0.0.0-3.255.255.255\n2001::/18\n");
    let service = Service::tcp(taken(&[3]));
    for flags in [&[][..], &["--skip-invalid"]] {
        let output = run_at(&service, &[&["import", &list], flags].concat());
        assert_eq!((code(&output), service.asked().len()), (4, 0), "{flags:?}");
        assert!(
            stderr(&output).contains(&format!("{list}:2: 1.0.0.0-3.255.255.255 is too broad")),
            "{}",
            stderr(&output)
        );
        assert!(!stderr(&output).contains(&format!("{list}:1:")), "a /8 is not too broad");
    }
    assert_eq!(code(&run_at(&service, &["import", &list, "--force"])), 0);
    assert!(edits(&service.asked()[0]).iter().all(|edit| edit.force));
}

#[test]
fn an_import_that_is_cut_short_says_how_far_it_came() {
    let folder = folder();
    let list = file(&folder, "1.2.3.4\n".repeat(1001));
    let service = Service::tcp(taken(&[1000]).into_iter().chain([error(401, "unauthorized")]));
    let output = run_at(&service, &["import", &list]);
    assert_eq!((code(&output), stdout(&output)), (4, ""));
    assert!(stderr(&output).contains("1 of 2 groups were taken, up to position 1000"), "{}", stderr(&output));
}

#[test]
fn a_group_that_is_repeated_keeps_its_key() {
    let folder = folder();
    let list = file(&folder, "1.2.3.4\n".repeat(1001));
    let (mut script, busy) = (taken(&[1000, 1]), error(503, "busy"));
    script.splice(1..1, [busy, Reply::Nothing]);
    let service = Service::tcp(script);
    let output = run_at(&service, &["import", &list]);
    assert_eq!(stdout(&output), "imported 1001 ranges (0 lines skipped) in 2 groups; position 1001\n");
    let asked = service.asked();
    let keys: Vec<_> = asked.iter().map(|asked| asked.header("idempotency-key").expect("a key")).collect();
    let name = keys[0].strip_suffix(".1").expect("the first group");
    assert_eq!(keys[1..], [&format!("{name}.2"); 3]);
    assert!(stderr(&output).contains("with the same key (2 of 5)"), "{}", stderr(&output));
}

#[test]
fn standard_input_and_a_dry_run() {
    let dry = reply(200, r#"{"rows_changed":2,"addresses_changed":512,"refused":0}"#);
    let service = Service::tcp([dry]);
    let mut command = program(&["--url", &service.url, "import", "-", "--dry-run"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"1.2.3.0,1.2.3.255,\"Hosting, Inc.\"\r\n1.2.4.0/24").expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(code(&output), 0);
    assert_eq!(
        stdout(&output),
        "would import 2 ranges (0 lines skipped) in 1 group, each judged alone: change 2 rows, 512 addresses\n"
    );
    let asked = service.asked();
    assert_eq!(asked[0].line, "POST /v1/commands?dry_run");
    assert_eq!(edits(&asked[0])[0].range.to_string(), "1.2.3.0/24");
}

#[test]
fn a_dry_run_of_what_would_be_refused_ends_with_4() {
    let folder = folder();
    let list = file(&folder, "1.2.3.4\n".repeat(2001));
    let dry = |refused: Value| {
        reply(200, &json!({"rows_changed": 3, "addresses_changed": 9, "refused": refused}).to_string())
    };
    let script = |last: Value| [dry(json!(2)), dry(json!(0)), dry(last)];
    // Of the last group, which has one command only, the reason is told.
    for (last, refused) in [(json!(null), 2), (json!("duplicate"), 2), (json!("too_broad"), 3)] {
        let service = Service::tcp(script(last.clone()).into_iter().chain(script(last)));
        let output = run_at(&service, &["import", &list, "--dry-run"]);
        let told = format!(
            "2001 ranges (0 lines skipped) in 3 groups, each judged alone: {refused} would be refused, and an \
             import ends before the first group with one; the rest alone would change 9 rows, 27 addresses\n"
        );
        assert_eq!((code(&output), stdout(&output)), (4, told.as_str()));
        let output = run_at(&service, &["import", &list, "--dry-run", "--json"]);
        let shown: Value = serde_json::from_str(stdout(&output)).expect("JSON");
        assert_eq!((code(&output), &shown["refused"]), (4, &json!(refused)));
        assert_eq!((&shown["rows_changed"], &shown["addresses_changed"]), (&json!(9), &json!(27)));
    }
    let duplicate = Service::tcp([dry(json!("duplicate"))]);
    let output = run_at(&duplicate, &["import", &file(&folder, "1.2.3.4\n"), "--dry-run", "--json"]);
    let shown: Value = serde_json::from_str(stdout(&output)).expect("JSON");
    assert_eq!((code(&output), &shown["refused"]), (0, &json!(0)));
}

/// The real lists, where they are present. One of them has a range that is too broad: 2002::/16.
#[test]
fn real_lists_are_taken_whole() {
    let lists = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let names = [
        ("ipsum.txt", 120_430, &[][..]),
        ("datacenters.csv", 3_429, &[]),
        ("clouds-ipv4.txt", 7_728, &[]),
        ("clouds-ipv6.txt", 12_872, &["--force"]),
    ];
    let present = names.into_iter().filter(|(name, ..)| lists.join(name).exists());
    for (name, ranges, flags) in present {
        let list = lists.join(name);
        let mut groups = vec![1000; ranges / 1000];
        groups.push(ranges % 1000);
        let service = Service::tcp(taken(&groups));
        let output = run_at(&service, &[&["import", list.to_str().expect("UTF-8")], flags].concat());
        let groups = groups.len();
        let expected =
            format!("imported {ranges} ranges (0 lines skipped) in {groups} groups; position {ranges}\n");
        assert_eq!((code(&output), stdout(&output)), (0, expected.as_str()), "{}", stderr(&output));
        assert_eq!(service.asked().iter().map(|asked| asked.lines().len()).sum::<usize>(), ranges);
    }
}
