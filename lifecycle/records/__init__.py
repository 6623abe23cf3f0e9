"""What is kept of people's requests, when somebody asks for it to be deleted: records, answers and feedback together."""
