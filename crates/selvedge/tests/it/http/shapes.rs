//! Answers held against the schemas that the document has for them: both ways, so that neither says what the other does not.

use serde_json::Value;

use super::client::Answer;

/// The document of a server.
pub struct Document(Value);

/// What does not fit, with where it stands.
pub type Misfit = Result<(), String>;

impl Document {
    /// That of this one.
    pub fn new() -> Document {
        Document(serde_json::to_value(selvedge_http::document()).unwrap())
    }

    /// A schema by its name.
    pub fn schema(&self, name: &str) -> &Value {
        let found = &self.0["components"]["schemas"][name];
        assert!(found.is_object(), "the document has no schema `{name}`");
        found
    }

    /// Whether an answer of a server looks as the document says, where the document says how.
    pub fn told(&self, method: &str, path: &str, answer: &Answer) -> Misfit {
        let Some((_, schema)) = self.of(method, path, answer.status) else { return Ok(()) };
        let value = serde_json::from_str(&answer.text).map_err(|error| format!("{method} {path}: {error}: {answer:?}"))?;
        self.fits(schema, &value, "$").map_err(|misfit| format!("{method} {path}: {misfit}, in {value}"))
    }

    /// The path of an operation as the document has it, and the schema of what it answers with a status.
    pub fn of(&self, method: &str, path: &str, status: u16) -> Option<(&str, &Value)> {
        let path: Vec<&str> = path.split('?').next().unwrap_or_default().split('/').collect();
        let matches = |written: &&String| {
            let parts: Vec<&str> = written.split('/').collect();
            parts.len() == path.len() && parts.iter().zip(&path).all(|(part, given)| part.starts_with('{') || part == given)
        };
        let (written, item) = self.0["paths"].as_object()?.iter().find(|(written, _)| matches(written))?;
        let schema = item[method.to_lowercase()]["responses"][status.to_string()]["content"]["application/json"].get("schema")?;
        Some((written.as_str(), schema))
    }

    /// Each answer of 2xx with JSON that the document knows, as method, path and status.
    pub fn answers(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (path, item) in self.0["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let answers = operation["responses"].as_object().unwrap().iter();
                let of_json = answers.filter(|(status, answer)| status.starts_with('2') && answer["content"].get("application/json").is_some());
                found.extend(of_json.map(|(status, _)| format!("{} {path} {status}", method.to_uppercase())));
            }
        }
        found
    }

    /// Whether a value is what a schema says, and has nothing that the schema does not know.
    pub fn fits(&self, schema: &Value, value: &Value, at: &str) -> Misfit {
        if let Some(name) = schema["$ref"].as_str().and_then(|place| place.rsplit('/').next()) {
            return self.fits(self.schema(name), value, at);
        }
        if let Some(ways) = schema["oneOf"].as_array() {
            let misfits: Vec<String> = ways.iter().filter_map(|way| self.fits(way, value, at).err()).collect();
            let fitting = ways.len() - misfits.len();
            return if fitting == 1 { Ok(()) } else { Err(format!("{fitting} of the ways of {at} fit: {}", misfits.join("; or "))) };
        }
        if let Some(types) = schema.get("type") {
            let is = kind(value);
            let fitting = |wanted: &Value| wanted == is || wanted == "number" && is == "integer";
            if !fitting(types) && !types.as_array().is_some_and(|types| types.iter().any(fitting)) {
                return Err(format!("{at} is {is}, and is to be {types}"));
            }
        }
        if let Some(words) = schema["enum"].as_array()
            && !words.contains(value)
        {
            return Err(format!("{at} is {value}, which is none of {words:?}"));
        }
        if schema["format"] == "date-time" && value.is_string() && selvedge_kernel::time::text::deserialize(value).is_err() {
            return Err(format!("{at} is {value}, which is no time"));
        }
        match value {
            Value::Array(items) => items.iter().enumerate().try_for_each(|(n, item)| self.fits(&schema["items"], item, &format!("{at}[{n}]"))),
            Value::Object(fields) => {
                let (mut properties, mut required) = (Vec::new(), Vec::new());
                self.parts(schema, &mut properties, &mut required);
                if properties.is_empty() && schema.get("additionalProperties").is_none() {
                    return Ok(());
                }
                if let Some(missing) = required.iter().find(|name| !fields.contains_key(**name)) {
                    return Err(format!("{at} has no `{missing}`"));
                }
                fields.iter().try_for_each(|(name, field)| match properties.iter().find(|(known, _)| known == name) {
                    Some((_, schema)) => self.fits(schema, field, &format!("{at}.{name}")),
                    None => match schema.get("additionalProperties") {
                        Some(schema) => self.fits(schema, field, &format!("{at}.{name}")),
                        None => Err(format!("{at} has `{name}`, of which the schema says nothing")),
                    },
                })
            }
            _ => Ok(()),
        }
    }

    /// The fields of an object, and those that it must have: its own, and those of what it is made of.
    fn parts<'a>(&'a self, schema: &'a Value, properties: &mut Vec<(&'a str, &'a Value)>, required: &mut Vec<&'a str>) {
        if let Some(name) = schema["$ref"].as_str().and_then(|place| place.rsplit('/').next()) {
            return self.parts(self.schema(name), properties, required);
        }
        schema["allOf"].as_array().into_iter().flatten().for_each(|part| self.parts(part, properties, required));
        properties.extend(schema["properties"].as_object().into_iter().flatten().map(|(name, schema)| (name.as_str(), schema)));
        required.extend(schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str));
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
