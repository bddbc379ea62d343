# The protected side's part: one small machine beside the database, which reads it and writes to Azure. The failback is typed here as well,
# since nothing else reaches RDS.

data "aws_caller_identity" "current" {}

data "aws_subnet" "was" {
  id = var.subnet
}

data "aws_db_instance" "source" {
  db_instance_identifier = var.rds_instance
}

# Ubuntu brings Amazon's session manager with it, so that nobody needs a key or an open port to log in.
data "aws_ssm_parameter" "image" {
  name = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
}

# --- who it is --------------------------------------------------------------------------------------------

resource "aws_iam_role" "backup" {
  name        = "${var.name}-planb"
  description = "The backup instance: reads one secret and one database."

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

# The same statements as config/aws-iam-policy.json, with the names that these have here.
resource "aws_iam_role_policy" "backup" {
  name = "planb"
  role = aws_iam_role.backup.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "ReadThePlanBSecretOnly"
        Effect   = "Allow"
        Action   = "secretsmanager:GetSecretValue"
        Resource = aws_secretsmanager_secret.planb.arn
      },
      {
        Sid      = "FindTheSourceInstance"
        Effect   = "Allow"
        Action   = "rds:DescribeDBInstances"
        Resource = data.aws_db_instance.source.db_instance_arn
      },
      {
        Sid      = "LogInAsPlanBWithoutAPassword"
        Effect   = "Allow"
        Action   = "rds-db:connect"
        Resource = "arn:aws:rds-db:${var.region}:${data.aws_caller_identity.current.account_id}:dbuser:${data.aws_db_instance.source.resource_id}/${var.database_user}"
      },
    ]
  })
}

# What the failback does from here: config/aws-iam-operator.json.
resource "aws_iam_role_policy" "failback" {
  count = var.distribution == "" ? 0 : 1

  name = "planb-failback"
  role = aws_iam_role.backup.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "SwitchTheTrafficOfThisDistributionOnly"
        Effect   = "Allow"
        Action   = ["cloudfront:GetDistribution", "cloudfront:GetDistributionConfig", "cloudfront:UpdateDistribution"]
        Resource = "arn:aws:cloudfront::${data.aws_caller_identity.current.account_id}:distribution/${var.distribution}"
      },
      {
        Sid      = "SeeWhetherThePrimaryIsReady"
        Effect   = "Allow"
        Action   = "eks:DescribeNodegroup"
        Resource = "arn:aws:eks:${var.region}:${data.aws_caller_identity.current.account_id}:nodegroup/${var.cluster}/*/*"
      },
      {
        Sid      = "SeeTheLoadBalancersTargets"
        Effect   = "Allow"
        Action   = "elasticloadbalancing:DescribeTargetHealth"
        Resource = "*"
      },
      {
        Sid    = "KeepTheOldPrimaryBeforeAFailback"
        Effect = "Allow"
        Action = ["rds:CreateDBSnapshot", "rds:DescribeDBSnapshots"]
        Resource = [
          data.aws_db_instance.source.db_instance_arn,
          "arn:aws:rds:${var.region}:${data.aws_caller_identity.current.account_id}:snapshot:planb-*",
        ]
      },
    ]
  })
}

resource "aws_iam_role_policy_attachment" "sessions" {
  role       = aws_iam_role.backup.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_instance_profile" "backup" {
  name = "${var.name}-planb"
  role = aws_iam_role.backup.name
}

# Its values are put in by hand, once, and never by Terraform, whose state would show them.
resource "aws_secretsmanager_secret" "planb" {
  name                    = var.secret
  description             = "source_password and azure_client_secret of PlanB."
  recovery_window_in_days = 30

  lifecycle {
    prevent_destroy = true
  }
}

# --- what it reaches --------------------------------------------------------------------------------------

# In: nothing. Out: the database, and https (Azure's stores, and AWS's own services). Names and time come from the VPC itself, which no
# security group stands before.
resource "aws_security_group" "backup" {
  name        = "${var.name}-planb"
  description = "PlanB's backup instance: out 443 and 3306 only"
  vpc_id      = data.aws_subnet.was.vpc_id
}

resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.backup.id
  description       = "Azure's stores and AWS's services, whose addresses change"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_vpc_security_group_egress_rule" "database" {
  security_group_id            = aws_security_group.backup.id
  description                  = "The source"
  ip_protocol                  = "tcp"
  from_port                    = 3306
  to_port                      = 3306
  referenced_security_group_id = var.database_security_group
}

resource "aws_vpc_security_group_ingress_rule" "database" {
  security_group_id            = var.database_security_group
  description                  = "PlanB reads the source, and brings data home"
  ip_protocol                  = "tcp"
  from_port                    = 3306
  to_port                      = 3306
  referenced_security_group_id = aws_security_group.backup.id
}

# --- the machine ------------------------------------------------------------------------------------------

resource "aws_instance" "backup" {
  ami                         = data.aws_ssm_parameter.image.insecure_value
  instance_type               = var.instance_type
  subnet_id                   = var.subnet
  vpc_security_group_ids      = [aws_security_group.backup.id]
  iam_instance_profile        = aws_iam_instance_profile.backup.name
  associate_public_ip_address = false
  disable_api_termination     = true
  ebs_optimized               = true

  user_data_replace_on_change = true
  user_data_base64 = base64gzip(templatefile("${path.module}/user-data.sh", {
    planb_url    = var.planb_url
    planb_sha256 = var.planb_sha256
    config       = base64encode(file(var.planb_config))
    unit         = filebase64("${path.module}/../../systemd/planb.service")
  }))

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  # Runs with steady compression; without this it is throttled once its credits are used up, and the RPO with it.
  credit_specification {
    cpu_credits = "unlimited"
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = 16
    encrypted   = true
  }

  lifecycle {
    # A newer image does not make a new machine by itself.
    ignore_changes = [ami]
  }

  tags = { Name = "${var.name}-planb" }
}
