//! The command line as the shell sees it: the real program, against a service that answers from a script.
#![allow(clippy::panic, missing_docs, unreachable_pub, reason = "tests")]

#[path = "cli/import.rs"]
mod import;
#[path = "cli/program.rs"]
mod program;
#[path = "cli/scripted.rs"]
mod scripted;

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use portcullis::address::Address;
use portcullis::command::{Action, Command as Edit};
use program::{code, edits, file, folder, program, run, run_at, stderr, stdout};
use scripted::{Asked, Reply, Service, error, reply};
use serde_json::{Value, json};

#[test]
fn without_a_verb_there_is_help() {
    let output = run(&[]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("Usage: portcullis") && stdout(&output).is_empty());
    let output = run(&["--help"]);
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).contains("Exit codes: 0 done"));
    let output = run(&["--version"]);
    assert_eq!(
        (code(&output), stdout(&output)),
        (0, concat!("portcullis ", env!("CARGO_PKG_VERSION"), "\n"))
    );
}

#[test]
fn wrong_usage_ends_with_2_names_the_fault_and_sends_nothing() {
    let service = Service::tcp([]);
    let cases: [(&[&str], &str); 26] = [
        (&["chekc"], "chekc"),
        (&["check"], "ADDRESS"),
        (&["check", "203.0.113.7", "203.0.113.07"], "did you mean 203.0.113.7?"),
        (&["check", "203.0.113.0/24"], "203.0.113.0/24"),
        (&["blacklist"], "RANGE"),
        (&["blacklist", "203.0.113.7/24"], "did you mean 203.0.113.0/24?"),
        (&["blacklist", "203.0.113.7", "--for", "soon"], "soon"),
        (&["blacklist", "203.0.113.7", "--for", "-2h"], "-2"),
        (&["blacklist", "203.0.113.7", "--for=-2h"], "a ban ends after it begins"),
        (&["blacklist", "203.0.113.7", "--until", "2026-12-01"], "2026-12-01T00:00:00Z"),
        (&["blacklist", "203.0.113.7", "--for", "2h", "--until", "2026-12-01T00:00:00Z"], "--until"),
        (&["blacklist", "203.0.113.7", "--wait", "--dry-run"], "--dry-run"),
        (&["blacklist", "203.0.113.7", "--reason", "a\u{7}b"], "`reason` holds a control character"),
        (&["whitelist", "203.0.113.7", "--for", "2h"], "--for"),
        (&["whitelist", "203.0.113.7", "--by", &"b".repeat(65)], "`by` has more than 64 bytes"),
        (&["import"], "FILE"),
        (&["import", "/nowhere/list.txt"], "/nowhere/list.txt: cannot be read"),
        (&["import", "/"], "/: cannot be read"),
        (&["import", "-"], "standard input: there is no range in it"),
        (&["import", "-", "--format", "xml"], "xml"),
        (&["status", "--wait", "--watch"], "--watch"),
        (&["serve"], "serve takes no --url"),
        (&["project"], "project takes no --url"),
        (&["project", "--skip-offset", "-1"], "-1"),
        (&["replay", "--until", "soon"], "write a position like 814, or a time like 2026-12-01T00:00:00Z"),
        (&["replay", "--until", "-1"], "-1"),
    ];
    for (args, fault) in cases {
        let output = run_at(&service, args);
        assert_eq!(code(&output), 2, "{args:?}: {output:?}");
        assert!(stderr(&output).contains(fault), "{args:?}: {}", stderr(&output));
        assert!(stdout(&output).is_empty(), "{args:?}");
    }
    assert_eq!(service.asked().len(), 0);
    assert_eq!(code(&run(&["--url", "https://127.0.0.1", "status"])), 2);
}

#[test]
fn a_wrong_configuration_ends_with_2() {
    let folder = folder();
    let config = file(&folder, "[lookup]\nworker = 1\n");
    let output = run(&["serve", "--config", &config, "--data", "/nowhere"]);
    assert_eq!(code(&output), 2);
    assert_eq!(
        stderr(&output),
        format!("portcullis: {config}:2: unknown key `worker`; did you mean `workers`?\n")
    );
    for args in [["--admin", "0.0.0.0:8182"], ["--lookup", "8181"], ["--admin", "127.0.0.1:8181"]] {
        let output = run(&[&["serve", "--data", "/nowhere"], &args[..]].concat());
        assert_eq!(code(&output), 2, "{args:?}: {output:?}");
        assert!(stderr(&output).contains(args[1]), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn project_needs_a_log_with_a_table() {
    let output = run(&["project", "--skip-offset", "7", "--listen", "127.0.0.1:0"]);
    assert_eq!(code(&output), 2);
    let said = stderr(&output);
    assert!(said.contains("kind = \"kafka\" in [log]") && said.lines().count() == 1, "{said}");
    for args in [["--listen", "8183"], ["--data", "/nowhere"], ["--skip-offset", "x"]] {
        let output = run(&[&["project"], &args[..]].concat());
        assert!(code(&output) == 2 && stderr(&output).contains(args[0]), "{args:?}: {}", stderr(&output));
    }
    let help = run(&["project", "--help"]);
    assert!(!stdout(&help).contains("--url") && !stdout(&help).contains("--data"), "{}", stdout(&help));
}

#[cfg(feature = "kafka")]
#[test]
fn the_verbs_of_the_table_need_kafka_and_take_no_service() {
    let folder = folder();
    let log = "[log]\nkind = \"kafka\"\nbootstrap_servers = \"127.0.0.1:1\"\ncommands_topic = \"c\"\n";
    let config = file(&folder, log);
    let cases: [(&[&str], &str); 6] = [
        (&["table", "verify"], "kind = \"kafka\" in [log]"),
        (&["table", "rebuild"], "kind = \"kafka\" in [log]"),
        (&["table", "verify", "--config", &config], "table_topic in [log]"),
        (&["table", "rebuild", "--config", &config], "table_topic in [log]"),
        (&["table", "verify", "--data", "/nowhere"], "takes no --url and no --data"),
        (&["replay", "--config", &config, "--url", "unix:/nowhere.sock"], "name one of them"),
    ];
    for (args, told) in cases {
        let output = run(args);
        let said = stderr(&output);
        assert!(code(&output) == 2 && said.contains(told) && said.lines().count() == 1, "{args:?}: {said}");
    }
    // Nothing listens there.
    let output = run(&["replay", "--config", &config]);
    assert!(code(&output) == 3 && stderr(&output).contains("no answer from Kafka"), "{}", stderr(&output));
}

#[test]
fn serve_offers_no_url_and_says_when_it_cannot_log_as_it_is_told() {
    let help = run(&["serve", "--help"]);
    assert!(stdout(&help).contains("--data") && !stdout(&help).contains("--url"), "{}", stdout(&help));
    assert!(stderr(&run(&["serve", "--url", "unix:/a.sock"])).contains("serve takes no --url"));
    let folder = folder();
    let no_folder = file(&folder, "");
    for (filter, told) in [("portcullis=loud", true), ("portcullis=debug", false), ("", false)] {
        let mut serve = program(&["serve", "--data", &no_folder]);
        let output = serve.env("RUST_LOG", filter).output().expect("it runs");
        assert_eq!(code(&output), 3, "{output:?}");
        assert_eq!(stderr(&output).contains("RUST_LOG: "), told, "{}", stderr(&output));
    }
}

#[test]
fn check_prints_a_line_an_address() {
    let service =
        Service::tcp([reply(200, "0\n0\n"), reply(200, "0\n1\n"), reply(200, "1"), reply(200, "1\n")]);
    let addresses = ["check", "203.0.113.7", "::ffff:203.0.113.8"];
    let output = run_at(&service, &addresses);
    assert_eq!((code(&output), stdout(&output)), (0, "203.0.113.7 0\n::ffff:203.0.113.8 0\n"));
    let output = run_at(&service, &addresses);
    assert_eq!((code(&output), stdout(&output)), (1, "203.0.113.7 0\n::ffff:203.0.113.8 1\n"));
    let output = run_at(&service, &["check", "2001:db8::7", "--json"]);
    assert_eq!(code(&output), 1);
    let line: Value = serde_json::from_str(stdout(&output)).expect("JSON");
    assert_eq!(line, json!({"address": "2001:db8::7", "blacklisted": true}));
    let short = run_at(&service, &addresses);
    assert_eq!((code(&short), stdout(&short)), (3, ""), "one answer for two addresses");

    let asked = &service.asked()[0];
    assert_eq!((asked.line.as_str(), asked.body.as_str()), ("POST /v1/check", "203.0.113.7\n203.0.113.8\n"));
    assert_eq!(asked.header("host"), service.url.strip_prefix("http://"));
}

#[test]
fn many_addresses_go_in_batches_over_one_connection() {
    let service = Service::tcp([reply(200, &"0\n".repeat(4096)), reply(200, "1\n")]);
    let addresses: Vec<String> =
        (0..4097_u32).map(|n| Address::from(std::net::IpAddr::from(n.to_be_bytes())).to_string()).collect();
    let args: Vec<&str> = ["check"].into_iter().chain(addresses.iter().map(String::as_str)).collect();
    let output = run_at(&service, &args);
    assert_eq!(code(&output), 1);
    assert!(stdout(&output).ends_with("\n0.0.15.255 0\n0.0.16.0 1\n"));
    let asked = service.asked();
    assert_eq!(asked.iter().map(|asked| asked.lines().len()).collect::<Vec<_>>(), [4096, 1]);
    assert_eq!(asked.iter().map(|asked| asked.connection).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn an_edit_is_sent_under_a_key_and_told_with_its_offset() {
    let folder = folder();
    let taken = reply(201, r#"{"offset":815,"count":2,"ids":["a","b"]}"#);
    let service = Service::unix(
        &folder.path().join("admin.sock"),
        [taken.clone(), reply(201, r#"{"offset":816,"count":1}"#), taken],
    );
    let data = folder.path().to_str().expect("UTF-8");
    // Without --url: the socket in the data directory that was named is found.
    let output = run(&[
        "blacklist",
        "203.0.113.0/24",
        "2001:db8::7",
        "--until",
        "2026-12-01T00:00:00Z",
        "--reason",
        "bot farm",
        "--by",
        "alice",
        "--force",
        "--data",
        data,
    ]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(
        stdout(&output),
        "BLACKLIST 203.0.113.0/24 until 2026-12-01T00:00:00.000Z at offset 814\n\
         BLACKLIST 2001:db8::7 until 2026-12-01T00:00:00.000Z at offset 815\n"
    );
    let output = run_at(&service, &["whitelist", "203.0.113.7"]);
    assert_eq!((code(&output), stdout(&output)), (0, "WHITELIST 203.0.113.7 at offset 816\n"));
    let output = run_at(&service, &["blacklist", "203.0.113.7", "203.0.113.8", "--for", "2h", "--json"]);
    let shown: Value = serde_json::from_str(stdout(&output)).expect("JSON");
    assert_eq!(shown["commands"][0], json!({"action": "BLACKLIST", "range": "203.0.113.7", "offset": 814}));

    let asked = service.asked();
    let [first, second, third] = asked.as_slice() else { panic!("three requests: {asked:?}") };
    assert_eq!((first.line.as_str(), first.header("host")), ("POST /v1/commands", Some("localhost")));
    assert_eq!(first.header("authorization"), None, "the socket is the right");
    let expires_at = "2026-12-01T00:00:00Z".parse().expect("a time");
    let range = "203.0.113.0/24".parse().expect("a range");
    let edit = Edit {
        reason: Some("bot farm".to_owned()),
        by: Some("alice".to_owned()),
        force: true,
        ..Edit::new(Action::Blacklist { expires_at: Some(expires_at) }, range)
    };
    assert_eq!(edits(first)[0], edit);
    assert_eq!(edits(second), [Edit::new(Action::Whitelist, "203.0.113.7".parse().expect("a range"))]);
    assert!(matches!(edits(third)[0].action, Action::Blacklist { expires_at: Some(_) }));
    let key = |asked: &Asked| asked.header("idempotency-key").expect("a key").to_owned();
    assert!(key(first).len() <= 58 && key(first) != key(second));
}

#[test]
fn what_the_fold_said_is_told() {
    let cases: [(&[&str], &str, &str, i32); 7] = [
        (&["--wait"], r#"{"offset":812,"changed":2,"refused":null}"#, " at offset 812 changed 2 rows", 0),
        (
            &["--wait"],
            r#"{"offset":812,"changed":0,"refused":"too_broad"}"#,
            " at offset 812 refused: too_broad",
            4,
        ),
        (&["--wait"], r#"{"offset":812,"duplicate":true}"#, " already in the log by offset 812", 0),
        (&[], r#"{"offset":812,"duplicate":true}"#, " already in the log by offset 812", 0),
        (
            &["--dry-run"],
            r#"{"rows_changed":2,"addresses_changed":250,"refused":null}"#,
            " would change 2 rows, 250 addresses",
            0,
        ),
        (
            &["--dry-run"],
            r#"{"rows_changed":1,"addresses_changed":"79228162514264337593543950336","refused":null}"#,
            " would change 1 row, 79228162514264337593543950336 addresses",
            0,
        ),
        (
            &["--dry-run"],
            r#"{"rows_changed":0,"addresses_changed":0,"refused":"expired"}"#,
            " would be refused: expired",
            4,
        ),
    ];
    for (flags, body, told, exit) in cases {
        let service = Service::tcp([reply(200, body)]);
        let output = run_at(&service, &[&["whitelist", "203.0.113.7"], flags].concat());
        assert_eq!(stdout(&output), format!("WHITELIST 203.0.113.7{told}\n"), "{flags:?} {body}");
        assert_eq!(code(&output), exit, "{flags:?} {body}");
        let path = match flags {
            ["--wait"] => "POST /v1/commands?wait=applied",
            ["--dry-run"] => "POST /v1/commands?dry_run",
            _ => "POST /v1/commands",
        };
        assert_eq!(service.asked()[0].line, path);
    }
    let service = Service::tcp([reply(202, r#"{"offset":812,"count":1}"#)]);
    let output = run_at(&service, &["whitelist", "203.0.113.7", "--wait"]);
    assert_eq!(
        (code(&output), stdout(&output)),
        (3, "WHITELIST 203.0.113.7 at offset 812\n"),
        "the wait ran out"
    );
}

#[test]
fn of_a_group_is_told_how_many_of_its_ranges_are_refused() {
    let cases = [
        (
            "--dry-run",
            r#"{"rows_changed":1,"addresses_changed":16777216,"refused":1}"#,
            "BLACKLIST 72.0.0.0/8\nBLACKLIST 73.0.0.0/8\n1 of 2 ranges would be refused, so that none would be \
             taken; the rest alone would change 1 row, 16777216 addresses\n",
        ),
        (
            "--wait",
            r#"{"offset":813,"count":2,"changed":1,"refused":1}"#,
            "BLACKLIST 72.0.0.0/8 at offset 812\nBLACKLIST 73.0.0.0/8 at offset 813\n\
             1 of 2 ranges refused; the rest changed 1 row\n",
        ),
    ];
    for (flag, body, told) in cases {
        let service = Service::tcp([reply(200, body), reply(200, body)]);
        let args = ["blacklist", "72.0.0.0/8", "73.0.0.0/8", flag];
        let output = run_at(&service, &args);
        assert_eq!((code(&output), stdout(&output)), (4, told), "{flag}");
        let output = run_at(&service, &[&args[..], &["--json"]].concat());
        let shown: Value = serde_json::from_str(stdout(&output)).expect("JSON");
        assert_eq!((code(&output), &shown["refused"]), (4, &json!(1)), "{flag}");
        assert_eq!(shown["rows_changed"], json!(1), "{flag}");
    }
}

#[test]
fn over_tcp_a_token_is_sent() {
    let folder = folder();
    let data = folder.path().to_str().expect("UTF-8");
    fs::write(folder.path().join("admin.token"), "from-file\n").expect("written");
    let service = Service::tcp(std::iter::repeat_n(reply(201, r#"{"offset":1,"count":1}"#), 3));
    let args = ["--url", &service.url, "blacklist", "203.0.113.7"];
    let sent = |program: &mut Command| {
        assert!(program.output().expect("it runs").status.success());
        service.asked().last().expect("a request").header("authorization").map(str::to_owned)
    };
    assert_eq!(sent(&mut program(&args)), None);
    assert_eq!(sent(program(&args).args(["--data", data])).as_deref(), Some("Bearer from-file"));
    let mut with_both = program(&args);
    with_both.args(["--data", data]).env("PORTCULLIS_TOKEN", "from-environment");
    assert_eq!(sent(&mut with_both).as_deref(), Some("Bearer from-environment"));
}

#[test]
fn a_write_is_repeated_under_the_same_key() {
    let taken = reply(201, r#"{"offset":812,"count":1}"#);
    let duplicate = reply(200, r#"{"offset":812,"duplicate":true}"#);
    let cases = [
        (vec![error(503, "busy"), taken.clone()], "503 answered", "it is busy"),
        (vec![error(504, "unknown_outcome"), duplicate.clone()], "504 answered", "it is unknown_outcome"),
        (vec![Reply::Nothing, taken], "hung up", "trying again"),
        (vec![Reply::CutOff("{\"offset\":".to_owned()), duplicate], "cut off", "the answer was cut off"),
    ];
    for (script, case, told) in cases {
        let service = Service::tcp(script);
        let output = run_at(&service, &["blacklist", "203.0.113.7"]);
        assert_eq!(code(&output), 0, "{case}: {output:?}");
        assert!(
            stderr(&output).contains(told) && stderr(&output).contains("with the same key (1 of 5)"),
            "{case}: {}",
            stderr(&output)
        );
        assert!(stdout(&output).starts_with("BLACKLIST 203.0.113.7 "), "{case}");
        let asked = service.asked();
        assert_eq!(asked.len(), 2, "{case}");
        assert_eq!(asked[0].header("idempotency-key"), asked[1].header("idempotency-key"), "{case}");
        assert_eq!(asked[0].body, asked[1].body, "{case}");
    }
}

#[test]
fn repeating_ends_some_time() {
    let service = Service::tcp(std::iter::repeat_n(error(503, "busy"), 100));
    let output = run_at(&service, &["blacklist", "203.0.113.7"]);
    assert_eq!(code(&output), 3);
    assert!(stderr(&output).contains("gave up"), "{}", stderr(&output));
    assert_eq!(service.asked().len(), 6);
}

#[test]
fn every_refusal_has_its_exit_code_and_is_final() {
    let cases = [(400, 2), (401, 4), (403, 4), (413, 2), (421, 4), (422, 4), (425, 3), (429, 3)];
    for (status, exit) in cases {
        for verb in [&["blacklist", "203.0.113.7"][..], &["check", "203.0.113.7"], &["export"], &["status"]] {
            let service = Service::tcp([error(status, "too_bad")]);
            let output = run_at(&service, verb);
            assert_eq!(code(&output), exit, "{status} {verb:?}");
            assert!(stderr(&output).starts_with("portcullis: it is too_bad; "), "{}", stderr(&output));
            assert!(stdout(&output).is_empty() && service.asked().len() == 1, "{status} {verb:?}");
        }
    }
    for verb in [&["check", "203.0.113.7"][..], &["export"], &["status"]] {
        let service = Service::tcp([error(503, "not_ready")]);
        assert_eq!(code(&run_at(&service, verb)), 3, "{verb:?}");
    }
}

#[test]
fn who_cannot_be_reached_is_named() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let url = format!("http://{}", free.expect("a free port"));
    for verb in [&["blacklist", "203.0.113.7"][..], &["check", "203.0.113.7"], &["export"], &["status"]] {
        let output = run(&[&["--url", &url], verb].concat());
        assert_eq!(code(&output), 3, "{verb:?}");
        assert!(stderr(&output).contains(&url), "{verb:?}: {}", stderr(&output));
        let mut by_environment = program(verb);
        by_environment.env("PORTCULLIS_URL", "unix:/nowhere/admin.sock");
        let output = by_environment.output().expect("it runs");
        assert_eq!(code(&output), 3, "{verb:?}");
        assert!(stderr(&output).contains("unix:/nowhere/admin.sock"), "{verb:?}: {}", stderr(&output));
        assert!(stderr(&output).ends_with("; start it with `portcullis serve`\n"), "{}", stderr(&output));
        let output = run(&[&["--data", "/nowhere"], verb].concat());
        assert_eq!(code(&output), 3, "{verb:?}");
        assert!(!stderr(&output).contains("127.0.0.1:8182"), "{verb:?}: {}", stderr(&output));
    }
}

#[test]
fn a_socket_of_others_stops_a_writer_with_4() {
    let folder = folder();
    let socket = folder.path().join("admin.sock");
    let service = Service::unix(&socket, []);
    // The program runs as nobody if we are root, who may do everything.
    let own = folder.path().join("portcullis");
    fs::copy(env!("CARGO_BIN_EXE_portcullis"), &own).expect("copied");
    for (path, mode) in [(folder.path(), 0o755), (&own, 0o755), (&socket, 0o000)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("permitted");
    }
    let run = |args: &[&str]| {
        let mut command = Command::new(&own);
        command.args(args).env_clear();
        if nix::unistd::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        command.output().expect("it runs")
    };
    let output = run(&["blacklist", "203.0.113.7", "--data", folder.path().to_str().expect("UTF-8")]);
    assert_eq!(code(&output), 4, "{output:?}");
    let told = format!("permission denied on {}: it belongs to the group ", socket.display());
    assert!(stderr(&output).contains(&told), "{}", stderr(&output));
    let output = run(&["check", "203.0.113.7", "--url", &service.url]);
    assert_eq!(code(&output), 3, "a reader goes on, and there is nothing more: {output:?}");
    assert_eq!(service.asked().len(), 0);
}

#[test]
fn a_connection_that_ended_is_made_again() {
    let service = Service::tcp([Reply::Last("0\n".repeat(4096)), Reply::Nothing, reply(200, "0\n")]);
    let args: Vec<&str> = ["check"].into_iter().chain(std::iter::repeat_n("203.0.113.7", 4097)).collect();
    let output = run_at(&service, &args);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    // One that is ended while the second question is on its way costs no repetition.
    let script = [reply(200, &"0\n".repeat(4096)), Reply::Nothing, Reply::Nothing, reply(200, "0\n")];
    let service = Service::tcp(script);
    assert_eq!(code(&run_at(&service, &args)), 0);
    assert_eq!(service.asked().iter().map(|asked| asked.connection).collect::<Vec<_>>(), [1, 1, 2, 3]);
    let service = Service::tcp([Reply::Nothing, Reply::Nothing, reply(200, "0\n")]);
    assert_eq!(code(&run_at(&service, &["check", "203.0.113.7"])), 3, "it is asked twice, not for ever");
}

#[test]
fn export_prints_what_comes() {
    let list = "203.0.113.0-203.0.113.255\n2001:db8::-2001:db8::1\n";
    let row = r#"{"start":"203.0.113.0","end":"203.0.113.6","command":812,"expires_at":null}"#;
    let service =
        Service::tcp([reply(200, list), reply(200, row), Reply::CutOff("203.0.113.0-203".to_owned())]);
    let output = run_at(&service, &["export"]);
    assert_eq!((code(&output), stdout(&output)), (0, list));
    assert_eq!(stdout(&run_at(&service, &["export", "--json"])), row);
    let output = run_at(&service, &["export"]);
    assert_eq!((code(&output), stdout(&output)), (3, "203.0.113.0-203"));
    assert!(stderr(&output).contains("the answer was cut off"), "{}", stderr(&output));
    let asked = service.asked();
    assert_eq!(asked[0].line, "GET /v1/ranges");
    assert_eq!((asked[0].header("accept"), asked[1].header("accept")), (Some("text/plain"), None));
}

#[test]
fn nobody_reading_on_is_no_failure() {
    let long = "203.0.113.0-203.0.113.255\n".repeat(100_000);
    let status = r#"{"phase":"following","ready":true}"#;
    let script = [reply(200, &long)].into_iter().chain(std::iter::repeat_n(reply(200, status), 100));
    let service = Service::tcp(script);
    for verb in [&["export"][..], &["status", "--watch", "--json"]] {
        let mut command = program(&[&["--url", &service.url], verb].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        assert!(long.starts_with(&line) || line.trim_end() == status, "{line}");
        let output = child.wait_with_output().expect("it ends");
        assert_eq!((code(&output), stderr(&output)), (0, ""), "{verb:?}");
    }
    let checked = Service::tcp([reply(200, "1\n")]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = program(&["--url", &checked.url, "check", "203.0.113.7"]);
    let output = command.stdout(writer).output().expect("it runs");
    assert_eq!((code(&output), stderr(&output)), (1, ""), "the answer stands, heard or not");
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let full = || File::options().write(true).open("/dev/full").expect("a full device");
    let service = Service::tcp([reply(200, "0\n"), reply(200, "203.0.113.0-203.0.113.255\n")]);
    for verb in [&["check", "203.0.113.7"][..], &["export"]] {
        let output =
            program(&[&["--url", &service.url], verb].concat()).stdout(full()).output().expect("it runs");
        assert_eq!(code(&output), 3, "{verb:?}");
        assert!(stderr(&output).contains("the result cannot be written"), "{verb:?}: {}", stderr(&output));
    }
}

#[test]
fn status_is_a_table_or_the_answer_itself() {
    let body = r#"{"phase":"following","ready":true,"stale":false,"degraded":"gap","position":816,"log_end":818,"lag":2,"age_ms":3,"rows":{"ipv4":2,"ipv6":1},"fingerprint":"00ff","refused":{"undecodable":1,"too_broad":0},"version":"9.9"}"#;
    let service = Service::tcp([reply(200, body), reply(200, body), reply(200, "no JSON")]);
    let output = run_at(&service, &["status"]);
    assert_eq!(code(&output), 0);
    let table = "phase       following\nready       yes\ndegraded    gap\nposition    816 (log end 818, lag 2)\n\
                 age         3 ms\nrows        2 IPv4, 1 IPv6\nrefused     0 too broad, 1 undecodable\n\
                 fingerprint 00ff\nversion     9.9\n";
    assert_eq!(stdout(&output), table);
    assert_eq!(stdout(&run_at(&service, &["status", "--json"])), format!("{body}\n"));
    assert_eq!(code(&run_at(&service, &["status"])), 3);
    assert_eq!(service.asked()[0].line, "GET /v1/status");
}

#[test]
fn a_projector_is_shown_by_its_role() {
    let body = r#"{"role":"stopped","ready":false,"reason":"future_command","reason_offset":7,"position":7,"rows":2,"fingerprint":"00ff","degraded":null,"message":"upgrade","version":"9.9"}"#;
    let standby = r#"{"role":"standby","ready":false}"#;
    let active = r#"{"role":"active","ready":true,"reason":null,"position":8,"rows":3}"#;
    let replies = [body, body, standby, active, body].map(|body| reply(200, body));
    let service = Service::tcp(replies);
    let table = "role        stopped\nready       no\nreason      future_command at offset 7\n\
                 message     upgrade\nposition    7\nrows        2\nfingerprint 00ff\nversion     9.9\n";
    assert_eq!(stdout(&run_at(&service, &["status"])), table);
    assert_eq!(stdout(&run_at(&service, &["status", "--json"])), format!("{body}\n"));
    let waited = run_at(&service, &["status", "--wait"]);
    assert_eq!((code(&waited), stderr(&waited)), (0, "portcullis: not ready yet: standby\n"));
    let stopped = run_at(&service, &["status", "--wait"]);
    let told = "portcullis: not ready, and stopped: future_command\n";
    assert_eq!((code(&stopped), stderr(&stopped)), (3, told));
}

#[test]
fn status_waits_until_the_service_is_ready() {
    let not_ready = reply(200, r#"{"phase":"catching_up","ready":false}"#);
    let script = [
        not_ready.clone(),
        error(503, "busy"),
        Reply::Nothing,
        not_ready,
        reply(200, r#"{"phase":"following","ready":true}"#),
    ];
    let service = Service::tcp(script);
    let output = run_at(&service, &["status", "--wait"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(stdout(&output).starts_with("phase       following\nready       yes\n"));
    assert_eq!(stderr(&output), "portcullis: not ready yet: catching_up\n");
    assert_eq!(service.asked().len(), 5);
    let service = Service::tcp([reply(200, r#"{"phase":"alarm","ready":false,"alarm":"another_log"}"#)]);
    assert_eq!(code(&run_at(&service, &["status", "--wait"])), 3);
    let service = Service::tcp([error(404, "not_found")]);
    assert_eq!(code(&run_at(&service, &["status", "--wait"])), 2, "what can't get better is not waited for");
}
