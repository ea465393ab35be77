//! Requests whole, cut, and wrong.

use super::*;
use proptest::prelude::*;

fn whole(text: &str) -> (Head, String) {
    match parse(text.as_bytes()) {
        Ok(Parsed::Whole { head, body }) => (head, text[body].to_owned()),
        other => panic!("{text:?}: {other:?}"),
    }
}

#[test]
fn requests_are_understood() {
    let rows = [
        ("GET /api/v1/vmm.ping HTTP/1.1\r\n\r\n", "GET", "/api/v1/vmm.ping", true, ""),
        ("GET /a HTTP/1.0\r\n\r\n", "GET", "/a", false, ""),
        ("GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET", "/a", true, ""),
        ("GET /a HTTP/1.1\r\nconnection: x, Close\r\n\r\n", "GET", "/a", false, ""),
        ("\r\n\r\nGET http://localhost/a?b=c#d HTTP/1.1\r\n\r\n", "GET", "/a", true, ""),
        ("GET http://localhost HTTP/1.1\r\n\r\n", "GET", "/", true, ""),
        ("PUT /a HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}GET", "PUT", "/a", true, "{}"),
        (
            "PUT /a HTTP/1.1\r\ncontent-length:  2 \r\nContent-Length: 2\r\n\r\n{}",
            "PUT",
            "/a",
            true,
            "{}",
        ),
        (
            "PUT /a HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
            "PUT",
            "/a",
            true,
            "x",
        ),
        ("PUT /a HTTP/1.1\nContent-Length: 1\n\nx", "PUT", "/a", true, "x"),
    ];
    for (text, method, path, keep_alive, body) in rows {
        let (head, rest) = whole(text);
        let expected = Head { method: method.into(), path: path.into(), keep_alive };
        assert_eq!((head, rest.as_str()), (expected, body), "{text:?}");
    }
}

#[test]
fn the_rest_is_refused_with_a_status() {
    let long = |bytes| format!("GET /{} HTTP/1.1\r\n", "a".repeat(bytes));
    let many = "GET / HTTP/1.1\r\n".to_owned() + &"a: b\r\n".repeat(HEADERS + 1) + "\r\n";
    let put = |header: &str| format!("PUT /a HTTP/1.1\r\n{header}\r\n\r\n");
    for (text, status) in [
        ("\0\0\0".to_owned(), 400),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 400),
        ("GET a HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("OPTIONS * HTTP/1.1\r\n\r\n".to_owned(), 400),
        (put("Content-Length: x"), 400),
        (put("Content-Length: -1"), 400),
        (put("Content-Length: +1"), 400),
        (put("Content-Length:"), 400),
        (put("Content-Length: 1\r\nContent-Length: 2"), 400),
        (put("Content-Length: 1, 1"), 400),
        (put(&format!("Content-Length: {}", BODY_BYTES + 1)), 413),
        (put("Content-Length: 99999999999999999999999999"), 413),
        (put("Transfer-Encoding: chunked"), 501),
        (put("Content-Length: 1\r\nTransfer-Encoding: identity"), 501),
        (put("Expect: a miracle"), 417),
        (long(HEAD_BYTES), 431),
        (long(HEAD_BYTES) + "\r\n", 431),
        (many, 431),
    ] {
        let refusal = parse(text.as_bytes()).expect_err(&text);
        assert_eq!(refusal.status, status, "{text:?}: {refusal:?}");
    }
}

#[test]
fn who_waits_for_a_word_before_the_body_gets_it() {
    let head = "PUT /a HTTP/1.1\r\nContent-Length: 5\r\n";
    for (text, asks) in [
        (format!("{head}Expect: 100-continue\r\n\r\n"), true),
        (format!("{head}Expect: 100-continue\r\n"), false),
        (format!("{head}\r\n1234"), false),
    ] {
        assert_eq!(parse(text.as_bytes()), Ok(Parsed::Partial { asks }), "{text:?}");
    }
}

#[test]
fn answers_are_http() {
    let refused = Err(Refusal::new(404, "no").because("\"so\""));
    for (reply, keep_alive, expected) in [
        (
            Ok(Answer::Done),
            true,
            "HTTP/1.1 204 No Content\r\nServer: zos-vmm\r\nConnection: keep-alive\r\n\r\n",
        ),
        (
            refused,
            false,
            "HTTP/1.1 404 Not Found\r\nServer: zos-vmm\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: 15\r\n\r\n[\"no\",\"\\\"so\\\"\"]",
        ),
    ] {
        assert_eq!(String::from_utf8(answer(&reply, keep_alive)).unwrap(), expected);
    }
}

proptest! {
    /// Whatever comes is understood, waited for or refused; a request is found wherever it is cut.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(Parsed::Whole { body, .. }) = parse(&bytes) {
            prop_assert!(body.end <= bytes.len());
        }
    }

    #[test]
    fn any_cut(cut in 0usize..60, body in "[a-z]{0,20}", more in "[ -~]{0,20}") {
        let text = format!("PUT /a HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let whole_length = text.len();
        let text = text + &more;
        let cut = cut.min(text.len());
        let parsed = parse(&text.as_bytes()[..cut]);
        if cut < whole_length {
            prop_assert_eq!(parsed, Ok(Parsed::Partial { asks: false }));
        } else {
            let found = matches!(parsed, Ok(Parsed::Whole { body, .. }) if body.end == whole_length);
            prop_assert!(found);
        }
    }
}
