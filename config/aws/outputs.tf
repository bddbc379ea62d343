output "instance" {
  description = "aws ssm start-session --target INSTANCE"
  value       = aws_instance.backup.id
}

output "role" {
  description = "ARN of its role."
  value       = aws_iam_role.backup.arn
}

output "secret" {
  description = "Where source_password and azure_client_secret belong: aws secretsmanager put-secret-value --secret-id SECRET"
  value       = aws_secretsmanager_secret.planb.name
}
