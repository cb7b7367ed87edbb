//! Whether the landlord has the schema that this program needs. If not, nothing else can be read.
use super::{Check, CheckFn};
use crate::doctor::code::Code;
use crate::doctor::finding::{Draft, Finding};
use crate::error::SchemaError;
use crate::operation::Subject;

pub(super) const CHECK: Check = Check {
    codes: &[Code::SchemaMissing, Code::SchemaNewer, Code::SchemaDamaged, Code::SchemaRights],
    run: CheckFn::Examination,
};

/// The finding for a schema that cannot be used; `None` if the landlord did not answer.
pub(in crate::doctor) fn of_schema_error(error: &SchemaError) -> Option<Finding> {
    let (code, lacks, advice) = match error {
        SchemaError::Missing(lacks) => {
            (Code::SchemaMissing, lacks, "call tenantry::schema::install() with the landlord's pool")
        }
        SchemaError::Newer(lacks) => (Code::SchemaNewer, lacks, "use the newer version that has migrated the landlord"),
        SchemaError::Damaged(lacks) => (
            Code::SchemaDamaged,
            lacks,
            "restore the landlord from a backup: new tables would hide the loss of their rows",
        ),
        SchemaError::Rights(lacks) => {
            (Code::SchemaRights, lacks, "grant these rights to the landlord's role, or use a role that has them")
        }
        SchemaError::Landlord(_) => return None,
    };
    Some(Draft::new(code, Subject::Landlord).seen("objects", lacks).no_repair(advice))
}
