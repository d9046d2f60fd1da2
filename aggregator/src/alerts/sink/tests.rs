//! What is sent, byte by byte, against limits and the schemes' own statements.

use serde_json::Value;

use super::*;
use crate::alerts::lifecycle::tests::{START, fired, slice};
use crate::alerts::lifecycle::{self, Transition};

pub(crate) const CONTEXT: Context<'static> =
    Context { dashboard: Some("https://lens.example/"), thread: None, now: START };

pub(crate) fn notice(kind: lifecycle::Kind) -> Notice {
    Notice::of(&Transition { kind, ..fired(&slice("rust")) }, "sink")
}

fn body(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

fn answer(status: u16, text: &str) -> Answer {
    Answer { status, retry_after: None, body: text.into() }
}

fn pagerduty() -> Kind {
    let routing_key = Secret::new("e93facc04764012d7bfb002500d5d1a6");
    Kind::PagerDuty { url: "https://events.pagerduty.com".into(), routing_key }
}

fn bot() -> Kind {
    let (url, channel) = ("https://slack.com/api".into(), "#alerts".into());
    Kind::SlackBot { url, token: Secret::new("xoxb-1"), channel }
}

fn alertmanager() -> Kind {
    let resend = Nanos::from_secs(30);
    Kind::Alertmanager { url: "http://127.0.0.1:9093".into(), token: None, resend }
}

/// Every text of a message, as long as it could be.
fn long(kind: lifecycle::Kind, alerts: usize) -> Notice {
    let mut notice = notice(kind);
    let alert = &mut notice.alerts[0];
    alert.summary = "ü<&>".repeat(2_000);
    alert.actions = vec!["do ü".repeat(2_000); 5];
    alert.key.subject.name = Some("n".repeat(400));
    notice.alerts = vec![alert.clone(); alerts];
    notice
}

#[test]
fn an_alert_is_one_dedup_key_from_trigger_to_resolve() {
    use lifecycle::Kind as What;
    let sent: Vec<Value> = What::ALL
        .iter()
        .map(|k| body(&pagerduty().request(&notice(*k), &CONTEXT).unwrap()))
        .collect();
    let actions: Vec<&str> = sent.iter().map(|e| e["event_action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["trigger", "trigger", "trigger", "trigger", "acknowledge", "resolve"]);
    for event in &sent {
        assert_eq!(event["dedup_key"], "tail/backend/rust/large/stage_a/baseline");
        assert_eq!(event["routing_key"].as_str().unwrap().len(), 32);
        let known = [
            "routing_key",
            "event_action",
            "dedup_key",
            "client",
            "client_url",
            "links",
            "payload",
        ];
        assert!(event.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())));
    }
    let payload = &sent[0]["payload"];
    assert_eq!((&payload["severity"], &payload["class"]), (&"error".into(), &"tail".into()));
    assert_eq!(payload["custom_details"]["evidence"]["ratio"], 2.61);
    let event = body(&pagerduty().request(&long(What::Fired, 1), &CONTEXT).unwrap());
    assert!(event["payload"]["summary"].as_str().unwrap().chars().count() <= 1_024);
    assert!(event["dedup_key"].as_str().unwrap().len() <= 255);
}

#[test]
fn slack_blocks_stay_within_every_limit() {
    for kind in lifecycle::Kind::ALL {
        for alerts in [1, 2, 20] {
            let message = body(&bot().request(&long(kind, alerts), &CONTEXT).unwrap());
            let blocks = message["blocks"].as_array().unwrap();
            assert!(blocks.len() <= 50);
            for block in blocks {
                let most = if block["type"] == "header" { 150 } else { 3_000 };
                let text = block["text"]["text"].as_str().unwrap_or("x");
                assert!((1..=most).contains(&text.chars().count()), "{text}");
                let fields = block["fields"].as_array().map_or(&[][..], Vec::as_slice);
                assert!(fields.len() <= 10);
                for field in fields {
                    assert!(field["text"].as_str().unwrap().chars().count() <= 2_000);
                }
            }
        }
    }
}

#[test]
fn a_bot_changes_its_message_where_there_is_no_news_and_answers_in_its_thread_where_there_is() {
    let thread = Thread { channel: "C1".into(), ts: "1.2".into() };
    let context = Context { thread: Some(&thread), ..CONTEXT };
    let sent = |kind| bot().request(&notice(kind), &context).unwrap();
    let update = sent(lifecycle::Kind::Resolved);
    assert!(update.url.expose().ends_with("/chat.update"));
    assert_eq!((&body(&update)["ts"], &body(&update)["channel"]), (&"1.2".into(), &"C1".into()));
    let reply = sent(lifecycle::Kind::Raised);
    assert!(reply.url.expose().ends_with("/chat.postMessage"));
    assert_eq!(body(&reply)["thread_ts"], "1.2");
    let first = bot().request(&notice(lifecycle::Kind::Fired), &CONTEXT).unwrap();
    assert_eq!(body(&first)["channel"], "#alerts");
    assert_eq!(first.headers, [(axum::http::header::AUTHORIZATION, Secret::new("Bearer xoxb-1"))]);
}

#[test]
fn a_bot_is_believed_only_when_it_says_ok() {
    let ok = bot().outcome(&answer(200, r#"{"ok":true,"channel":"C1","ts":"1.2"}"#));
    let thread = Some(Thread { channel: "C1".into(), ts: "1.2".into() });
    assert_eq!(ok, Outcome::Delivered { said: "ok".into(), thread });
    let refused = bot().outcome(&answer(200, r#"{"ok":false,"error":"invalid_blocks"}"#));
    assert_eq!(refused, Outcome::Refused { said: "invalid_blocks".into() });
    let again = bot().outcome(&answer(200, r#"{"ok":false,"error":"ratelimited"}"#));
    assert!(matches!(again, Outcome::Retry { after: Some(_), .. }));
    assert!(matches!(bot().outcome(&answer(200, "<html>")), Outcome::Retry { .. }));
}

#[test]
fn busy_and_broken_receivers_are_asked_again_and_refusals_are_final() {
    let limited = Answer { retry_after: Some(Nanos::from_secs(2)), ..answer(429, "slow down") };
    for sink in [pagerduty(), bot(), alertmanager()] {
        assert_eq!(
            sink.outcome(&limited),
            Outcome::Retry { after: Some(Nanos::from_secs(2)), said: "429 slow down".into() }
        );
        for status in [500, 502, 503, 599] {
            assert!(matches!(sink.outcome(&answer(status, "")), Outcome::Retry { .. }), "{status}");
        }
        for status in [301, 302, 400, 401, 403, 404, 410, 413, 422] {
            assert!(
                matches!(sink.outcome(&answer(status, "")), Outcome::Refused { .. }),
                "{status}"
            );
        }
    }
    let forever = Answer { retry_after: Some(Nanos::from_secs(u64::MAX)), ..answer(429, "") };
    let Outcome::Retry { after, .. } = pagerduty().outcome(&forever) else { panic!() };
    assert_eq!(after, Some(RETRY_AFTER_MAX));
}

#[test]
fn alertmanager_is_told_an_end_and_a_worse_alert_ends_the_one_before() {
    let fired = body(&alertmanager().request(&notice(lifecycle::Kind::Fired), &CONTEXT).unwrap());
    let ends = lens_service::time::rfc3339(START.plus(Nanos::from_secs(120)));
    assert_eq!(fired[0]["endsAt"], ends.as_str());
    assert_eq!(fired[0]["labels"]["alertname"], "lens_tail");
    assert_eq!(fired.as_array().unwrap().len(), 1);
    let mut raised = notice(lifecycle::Kind::Raised);
    raised.before = Some(Severity::Warning);
    let raised = body(&alertmanager().request(&raised, &CONTEXT).unwrap());
    assert_eq!(
        (&raised[0]["labels"]["severity"], &raised[1]["labels"]["severity"]),
        (&"error".into(), &"warning".into())
    );
    assert_eq!(raised[1]["endsAt"], lens_service::time::rfc3339(START).as_str());
    let again = alertmanager().again(notice(lifecycle::Kind::Fired).alerts.iter(), &CONTEXT);
    assert_eq!(body(&again.unwrap()), fired);
    assert_eq!(alertmanager().again([].iter(), &CONTEXT), None);
}

#[test]
fn a_signature_is_that_of_the_schemes_own_example() {
    // The example of the scheme's specification.
    let key: SigningKey = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
    let signed = key.sign_for_test(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330,
        br#"{"test": 2432232314}"#,
    );
    assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    for bad in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_c2hvcnQ=", "whsec_?"] {
        assert!(bad.parse::<SigningKey>().is_err(), "{bad}");
    }
}

#[test]
fn no_secret_is_shown() {
    let key: SigningKey = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
    let url = Secret::new("https://hooks.slack.com/services/T0/B0/hush");
    let sinks = [
        pagerduty(),
        bot(),
        Kind::SlackWebhook { url },
        Kind::Webhook { url: "http://127.0.0.1/".into(), keys: vec![key] },
    ];
    for sink in sinks {
        let request = sink.request(&notice(lifecycle::Kind::Fired), &CONTEXT).unwrap();
        let text = format!("{sink:?} {:?} {:?}", request.url, request.headers);
        for secret in ["e93facc", "xoxb", "hush", "MfKQ", "v1,"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

#[test]
fn texts_are_cut_at_a_character() {
    assert_eq!(cut("abc", 3), "abc");
    assert_eq!(cut("abcdef", 5), "ab…");
    assert_eq!(cut("üüüü", 6), "ü…");
}
