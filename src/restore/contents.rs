//! Everything that a backup makes but for the rows, which stay where they are.

use super::error::RestoreError;
use super::programs::{self, Item};
use super::schema::Schema;
use crate::backup::archive::{Archive, ReadError};
use crate::backup::verify;
use crate::format::index::MemberKind;

#[derive(Debug, Clone, Default)]
pub struct Contents {
    pub schema: Schema,
    /// Routines, views, triggers, events: by member, in the order that loads.
    pub items: Vec<Vec<Item>>,
}

impl Contents {
    /// # Errors
    /// [`RestoreError`]: the store's, or that the backup is damaged.
    pub async fn read(archive: &Archive) -> Result<Self, RestoreError> {
        let index = &archive.index;
        verify::agrees_with_itself(index).map_err(|detail| RestoreError::Backup(ReadError::Damaged(detail)))?;
        let mut contents = Self::default();
        for (number, member) in index.members.iter().enumerate() {
            match member.kind {
                MemberKind::Schema => contents.schema = Schema::parse(&archive.member(number).await?)?,
                MemberKind::Data => {}
                MemberKind::Routines
                | MemberKind::Views
                | MemberKind::Triggers
                | MemberKind::Events
                | MemberKind::ViewsElsewhere => {
                    contents.items.push(programs::items(&archive.member(number).await?)?);
                }
            }
        }
        Ok(contents)
    }

    /// All of them in one list, as planning wants them.
    pub fn programs(&self) -> Vec<Item> {
        self.items.iter().flatten().cloned().collect()
    }
}
