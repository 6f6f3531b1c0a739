//! Which objects are meant: field selectors, label selectors as text and as objects.
//!
//! Written anew on purpose: the operator's own parser is among what is tested against this server.

use serde_json::{Map, Value};

use super::{
    failure::Failure,
    store::{Change, Key},
};

/// What a list or a watch is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// `None`: all resources.
    pub(super) resource: Option<&'static str>,
    /// Empty: all namespaces.
    pub(super) namespace: String,
    pub(super) fields: Vec<Field>,
    pub(super) labels: Vec<Requirement>,
}

/// One term of a field selector.
#[derive(Clone, Debug)]
pub(super) struct Field {
    place: Place,
    value: String,
    equal: bool,
}

#[derive(Clone, Debug)]
enum Place {
    /// `metadata.name`, which the key has as well: every agent's watch is about one name.
    Name,
    Path(Vec<String>),
}

/// One term of a label selector.
#[derive(Clone, Debug)]
pub(super) struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl Filter {
    /// Whether an object at this key is meant.
    pub(super) fn matches(&self, key: &Key, object: &Value) -> bool {
        self.matches_key(key) && self.matches_content(object)
    }

    /// Whether the object was or is meant. Most changes are of other objects, which their keys tell.
    pub(super) fn concerns(&self, change: &Change) -> bool {
        self.matches_key(&change.key)
            && [&change.before, &change.after].into_iter().flatten().any(|object| self.matches_content(object))
    }

    fn matches_key(&self, key: &Key) -> bool {
        self.resource.is_none_or(|resource| resource == key.resource)
            && self.fields.iter().all(|field| field.holds_for_key(key))
            && (self.namespace.is_empty() || self.namespace == key.namespace)
    }

    fn matches_content(&self, object: &Value) -> bool {
        self.fields.iter().all(|field| field.holds_for_content(object))
            && (self.labels.is_empty() || all_hold(&self.labels, object["metadata"]["labels"].as_object()))
    }

    /// Whether it is about everything in its namespace.
    pub(super) fn is_plain(&self) -> bool {
        self.fields.is_empty() && self.labels.is_empty()
    }
}

/// The fields that can be selected by, besides the name and the namespace, where a resource has some.
fn selectable(resource: &str) -> &'static [&'static str] {
    match resource {
        "pods" => &["spec.nodeName", "status.phase", "spec.restartPolicy", "spec.schedulerName", "status.podIP"],
        "nodes" => &["spec.unschedulable"],
        "namespaces" => &["status.phase"],
        "events" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        _ => &[],
    }
}

/// Reads a field selector for a resource.
pub(super) fn parse_fields(resource: &str, text: &str) -> Result<Vec<Field>, Failure> {
    text.split(',').filter(|term| !term.is_empty()).map(|term| parse_field(resource, term)).collect()
}

fn parse_field(resource: &str, term: &str) -> Result<Field, Failure> {
    let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
        (path, value, false)
    } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (path, value, true)
    } else {
        return Err(Failure::bad_request(format!("invalid selector: '{term}'; can't understand '{term}'")));
    };
    // The newer API of Events has other words for the same fields.
    let path = path.replace("regarding.", "involvedObject.").replace("reportingController", "reportingComponent");
    if !["metadata.name", "metadata.namespace"].contains(&path.as_str()) && !selectable(resource).contains(&&*path) {
        return Err(Failure::bad_request(format!("field label not supported: {path}")));
    }
    let place = match path.as_str() {
        "metadata.name" => Place::Name,
        path => Place::Path(path.split('.').map(str::to_owned).collect()),
    };
    Ok(Field { place, value: value.to_owned(), equal })
}

impl Field {
    fn holds_for_key(&self, key: &Key) -> bool {
        match &self.place {
            Place::Name => (key.name == self.value) == self.equal,
            Place::Path(_) => true,
        }
    }

    fn holds_for_content(&self, object: &Value) -> bool {
        match &self.place {
            Place::Name => true,
            Place::Path(path) => {
                let found = path.iter().fold(object, |value, step| &value[step.as_str()]);
                self.is_value(found) == self.equal
            }
        }
    }

    fn is_value(&self, found: &Value) -> bool {
        match found {
            Value::String(text) => *text == self.value,
            Value::Bool(flag) => flag.to_string() == self.value,
            // An event's source is its component.
            Value::Object(source) => source.get("component").and_then(Value::as_str) == Some(&self.value),
            // What is not there is as good as empty or false.
            _ => self.value.is_empty() || self.value == "false",
        }
    }
}

/// Reads a label selector as `kubectl -l` has it.
pub(super) fn parse_labels(text: &str) -> Result<Vec<Requirement>, Failure> {
    let wrong = || Failure::bad_request(format!("unable to parse requirement: {text}"));
    split_outside_brackets(text).into_iter().map(|term| parse_requirement(term.trim()).ok_or_else(wrong)).collect()
}

fn split_outside_brackets(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let terms = text.split(|letter| {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        letter == ',' && depth == 0
    });
    terms.filter(|term| !term.trim().is_empty()).collect()
}

fn parse_requirement(term: &str) -> Option<Requirement> {
    let requirement = |key: &str, test| {
        let key = key.trim();
        let plain = !key.is_empty() && !key.contains(|letter: char| letter.is_whitespace() || "()=!".contains(letter));
        plain.then(|| Requirement { key: key.to_owned(), test })
    };
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some(key) = term.strip_prefix('!') {
        return requirement(key, Test::Absent);
    }
    if let Some(list) = term.strip_suffix(')') {
        let (head, list) = list.split_once('(')?;
        let values = list.split(',').map(|value| value.trim().to_owned()).collect();
        let (key, word) = head.trim().rsplit_once(char::is_whitespace)?;
        return match word {
            "in" => requirement(key, Test::In(values)),
            "notin" => requirement(key, Test::NotIn(values)),
            _ => None,
        };
    }
    if let Some((key, value)) = term.split_once("!=") {
        return requirement(key, Test::NotIn(one(value)));
    }
    match term.split_once("==").or_else(|| term.split_once('=')) {
        Some((key, value)) => requirement(key, Test::In(one(value))),
        None => requirement(term, Test::Exists),
    }
}

/// Reads a selector as objects carry it; one that is empty selects everything.
pub(super) fn of_object(selector: &Value) -> Vec<Requirement> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let equal = equal.map(|(key, value)| Requirement { key: key.clone(), test: Test::In(vec![text(value)]) });
    let terms = selector["matchExpressions"].as_array().into_iter().flatten();
    let terms = terms.map(|term| {
        let values = term["values"].as_array().into_iter().flatten().map(text).collect();
        let test = match term["operator"].as_str() {
            Some("In") => Test::In(values),
            Some("NotIn") => Test::NotIn(values),
            Some("DoesNotExist") => Test::Absent,
            _ => Test::Exists,
        };
        Requirement { key: text(&term["key"]), test }
    });
    equal.chain(terms).collect()
}

/// Whether these labels meet every requirement.
pub(super) fn all_hold(requirements: &[Requirement], labels: Option<&Map<String, Value>>) -> bool {
    requirements.iter().all(|Requirement { key, test }| {
        let value = labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        let is_one_of = |values: &[String]| value.is_some_and(|value| values.iter().any(|other| other == value));
        match test {
            Test::In(values) => is_one_of(values),
            Test::NotIn(values) => !is_one_of(values),
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
        }
    })
}
