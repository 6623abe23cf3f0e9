"""What is kept of people's requests, when somebody asks for its deletion: records, answers and feedback together."""
