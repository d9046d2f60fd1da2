//! Short texts and labels whose bounds hold by construction, so that writing them cannot fail.

use std::collections::BTreeMap;
use std::fmt;

use lens_model::limits::NAME_BYTES_MAX;

use crate::error::TextError;
use crate::limits::{LABELS_MAX, REASON_BYTES_MAX};

/// UTF-8 without control characters, at most `MAX` bytes. It may be empty. (WIRE-022)
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<const MAX: usize>(Box<str>);

/// A version, a service, a gauge's name, a label's name or value: at most [`NAME_BYTES_MAX`] bytes.
pub type Label = Text<NAME_BYTES_MAX>;

/// A reason for people to read: at most [`REASON_BYTES_MAX`] bytes.
pub type Reason = Text<REASON_BYTES_MAX>;

impl<const MAX: usize> Text<MAX> {
    /// Checks and takes a text.
    ///
    /// # Errors
    /// [`TextError::TooLong`] above `MAX` bytes, [`TextError::Control`] with a control character.
    pub fn new(text: &str) -> Result<Self, TextError> {
        if text.len() > MAX {
            return Err(TextError::TooLong { bytes: text.len(), max: MAX });
        }
        if text.chars().any(char::is_control) {
            return Err(TextError::Control);
        }
        Ok(Self(text.into()))
    }

    /// What fits of a text, control characters replaced by spaces.
    pub fn lossy(text: &str) -> Self {
        let mut fits = String::with_capacity(text.len().min(MAX));
        for letter in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
            if fits.len() + letter.len_utf8() > MAX {
                break;
            }
            fits.push(letter);
        }
        Self(fits.into())
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an operator says about an agent, `zone = eu-1` for one: names with values, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<Label, Label>);

impl Labels {
    /// No labels.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Sets a label, replacing its earlier value.
    ///
    /// # Errors
    /// [`TextError::NoName`] for an empty name, [`TextError::TooManyLabels`] past
    /// [`LABELS_MAX`]; the labels are as they were.
    pub fn set(&mut self, name: Label, value: Label) -> Result<(), TextError> {
        if name.is_empty() {
            return Err(TextError::NoName);
        }
        if self.0.len() >= LABELS_MAX && !self.0.contains_key(&name) {
            return Err(TextError::TooManyLabels { max: LABELS_MAX });
        }
        self.0.insert(name, value);
        Ok(())
    }

    /// The value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|label| label.0 == name).map(|label| label.1)
    }

    /// Names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last name, for a reader that insists on order.
    pub(crate) fn last_name(&self) -> Option<&Label> {
        self.0.keys().next_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_bounded_at_its_limit_and_cut_between_letters() {
        assert!(Label::new(&"x".repeat(NAME_BYTES_MAX)).is_ok());
        assert!(Label::new(&"x".repeat(NAME_BYTES_MAX + 1)).is_err());
        assert_eq!(Label::new("a\nb"), Err(TextError::Control));
        let long = format!("a\n{}", "é".repeat(NAME_BYTES_MAX));
        let cut = Label::lossy(&long);
        assert_eq!(cut.as_str().len(), NAME_BYTES_MAX);
        assert!(cut.as_str().starts_with("a é"));
    }

    #[test]
    fn labels_are_bounded_at_their_limit_and_a_name_is_kept_once() {
        let mut labels = Labels::new();
        let value = Label::new("v").unwrap();
        for at in 0..LABELS_MAX {
            labels.set(Label::new(&format!("l{at:02}")).unwrap(), value.clone()).unwrap();
        }
        let over = labels.set(Label::new("more").unwrap(), value.clone());
        assert_eq!(over, Err(TextError::TooManyLabels { max: LABELS_MAX }));
        labels.set(Label::new("l00").unwrap(), Label::new("w").unwrap()).unwrap();
        assert_eq!(labels.get("l00"), Some("w"));
        assert_eq!(labels.len(), LABELS_MAX);
        assert_eq!(labels.set(Label::default(), value), Err(TextError::NoName));
    }
}
