//! JSON-RPC 2.0, in which the same methods can be asked for.

use serde_json::{Map, Value, json};

use super::failure::{Failure, FailureCode};

/// Its version, as each message names it.
const VERSION: &str = "2.0";

/// Codes of the specification.
const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;

/// So much of a cause is repeated.
const ECHOED: usize = 200;

/// A request or, without an id, a notification.
#[derive(Clone, Debug, PartialEq)]
pub struct RpcCall {
    pub id: Option<Value>,
    pub method: String,
    pub params: Value,
}

/// Whether an object is meant as a message of JSON-RPC.
pub fn is_meant(message: &Map<String, Value>) -> bool {
    message.contains_key("jsonrpc")
}

/// # Errors
/// The answer to what is no request.
pub fn call_of(message: Value) -> Result<RpcCall, Value> {
    let Value::Object(mut message) = message else {
        return Err(invalid(Value::Null, "a request is an object"));
    };
    let id = message.remove("id");
    let known = match &id {
        None | Some(Value::Null | Value::String(_) | Value::Number(_)) => id.clone(),
        Some(_) => return Err(invalid(Value::Null, "an id is a string or a number")),
    };
    let refuse = |why| Err(invalid(known.clone().unwrap_or_default(), why));
    if message.remove("jsonrpc").as_ref().and_then(Value::as_str) != Some(VERSION) {
        return refuse("jsonrpc is \"2.0\"");
    }
    let Some(Value::String(method)) = message.remove("method") else {
        return refuse("method is a string");
    };
    let params = match message.remove("params") {
        None => Value::Null,
        // Nothing by position is the same as nothing.
        Some(Value::Array(params)) if params.is_empty() => Value::Null,
        Some(params @ (Value::Object(_) | Value::Array(_))) => params,
        Some(_) => return refuse("params are an object"),
    };
    Ok(RpcCall { id, method, params })
}

/// The answer to a request.
pub fn answer(id: &Value, result: &Result<Value, Failure>) -> Value {
    match result {
        Ok(payload) => json!({"jsonrpc": VERSION, "result": payload, "id": id}),
        Err(failure) => error(
            id.clone(),
            code_of(failure.code),
            &failure.message,
            Some(json!({"code": failure.code})),
        ),
    }
}

/// An event.
pub fn notification(event: &str, payload: &Value, seq: Option<u64>) -> Value {
    let mut params = Map::new();
    params.insert("payload".to_owned(), payload.clone());
    if let Some(seq) = seq {
        params.insert("seq".to_owned(), seq.into());
    }
    json!({"jsonrpc": VERSION, "method": event, "params": params})
}

/// The answer to what is no JSON.
pub fn not_parsed(why: &str) -> Value {
    error(Value::Null, PARSE_ERROR, why, None)
}

/// The answer to what is no request.
pub fn invalid(id: Value, why: &str) -> Value {
    error(id, INVALID_REQUEST, why, None)
}

fn error(id: Value, code: i64, message: &str, data: Option<Value>) -> Value {
    let mut error = Map::new();
    error.insert("code".to_owned(), code.into());
    error.insert("message".to_owned(), message.into());
    error.extend(data.map(|data| ("data".to_owned(), data)));
    json!({"jsonrpc": VERSION, "error": error, "id": id})
}

/// In the place of an answer that is too long. Its id may be the reason.
pub fn too_long(answer: &Value, why: &str) -> Value {
    let short = |id: &Value| id.as_str().is_none_or(|id| id.len() <= ECHOED);
    let id = answer.get("id").filter(|id| short(id)).cloned();
    let failure = Failure::new(
        FailureCode::Failed,
        format!("the answer is too long: {why}"),
    );
    self::answer(&id.unwrap_or_default(), &Err(failure))
}

/// Those of the specification where they say the same; the others are of the range for servers.
fn code_of(code: FailureCode) -> i64 {
    match code {
        FailureCode::BadRequest => INVALID_PARAMS,
        FailureCode::UnknownMethod => METHOD_NOT_FOUND,
        FailureCode::Failed => -32000,
        FailureCode::Rejected => -32001,
        FailureCode::ConfigInvalid => -32002,
        FailureCode::Moved => -32003,
        FailureCode::Forbidden => -32004,
        FailureCode::Unsupported => -32005,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_from_what_is_none() {
        let call = |text: &str| call_of(serde_json::from_str(text).unwrap());
        let status = |id: Option<Value>| RpcCall {
            id,
            method: "status".to_owned(),
            params: Value::Null,
        };
        for (text, id) in [
            (
                r#"{"jsonrpc":"2.0","method":"status","id":7}"#,
                Some(json!(7)),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"status","id":"a","params":[]}"#,
                Some(json!("a")),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"status","id":null}"#,
                Some(Value::Null),
            ),
            (r#"{"jsonrpc":"2.0","method":"status"}"#, None),
        ] {
            assert_eq!(call(text), Ok(status(id)), "{text}");
        }
        for (text, id) in [
            ("1", Value::Null),
            ("[]", Value::Null),
            (r#"{"jsonrpc":"1.0","method":"status","id":1}"#, json!(1)),
            (r#"{"jsonrpc":2.0,"method":"status","id":1}"#, json!(1)),
            (r#"{"jsonrpc":"2.0","method":1,"id":"b"}"#, json!("b")),
            (r#"{"jsonrpc":"2.0","id":"b"}"#, json!("b")),
            (
                r#"{"jsonrpc":"2.0","method":"status","params":"x","id":1}"#,
                json!(1),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"status","id":[1]}"#,
                Value::Null,
            ),
        ] {
            let refused = call(text).unwrap_err();
            assert_eq!(refused["error"]["code"], INVALID_REQUEST, "{text}");
            assert_eq!(
                (&refused["id"], &refused["jsonrpc"]),
                (&id, &json!("2.0")),
                "{text}"
            );
        }
    }

    #[test]
    fn an_answer_has_a_result_or_an_error_of_the_specification() {
        let done = answer(&json!(1), &Ok(json!({"a": 1})));
        assert_eq!(done, json!({"jsonrpc": "2.0", "result": {"a": 1}, "id": 1}));
        let failed = answer(
            &json!(1),
            &Err(Failure::new(FailureCode::UnknownMethod, "no")),
        );
        let expected = json!({
            "jsonrpc": "2.0",
            "error": {"code": -32601, "message": "no", "data": {"code": "unknown_method"}},
            "id": 1
        });
        assert_eq!(failed, expected);
        let told = notification("state", &json!({"stage": "ready"}), Some(1));
        let params = json!({"payload": {"stage": "ready"}, "seq": 1});
        assert_eq!(
            told,
            json!({"jsonrpc": "2.0", "method": "state", "params": params})
        );
    }
}
